package main

import (
	"log"
	"runtime"
	"strings"
	"syscall"
	"unsafe"
)

// bpf(2), which package syscall is too old to know.
var bpfNumber = map[string]uintptr{"amd64": 321, "arm64": 280}

// Commands and types of linux/bpf.h.
const (
	bpfProgLoad              = 5
	bpfRawTracepointOpen     = 17
	bpfEnableStats           = 32
	bpfProgTypeRawTracepoint = 17
)

// nothing is a program: r0 = 0, exit (struct bpf_insn).
var nothing = [16]byte{0: 0xb7, 8: 0x95}

// progLoad is the beginning of union bpf_attr for BPF_PROG_LOAD; the kernel takes the rest for zero.
type progLoad struct {
	progType, insnCount uint32
	insns, license      unsafe.Pointer
}

// rawTracepointOpen is the same for BPF_RAW_TRACEPOINT_OPEN.
type rawTracepointOpen struct {
	name   unsafe.Pointer
	progFD uint32
	_      uint32
}

// enableStats is the same for BPF_ENABLE_STATS; 0 is BPF_STATS_RUN_TIME.
type enableStats struct {
	statsType uint32
}

// empty runs a program that does nothing on each of these tracepoints: what hooks cost by themselves. They are gone when this process is.
// Where they are timed the kernel counts what that takes: its reading of the clock.
func empty(tracepoints string, timed bool) {
	if timed {
		bpf(bpfEnableStats, unsafe.Pointer(&enableStats{}), unsafe.Sizeof(enableStats{}))
	}
	license := []byte("GPL\x00")
	for _, tracepoint := range strings.Split(tracepoints, ",") {
		program := bpf(bpfProgLoad, unsafe.Pointer(&progLoad{
			progType:  bpfProgTypeRawTracepoint,
			insnCount: uint32(len(nothing) / 8),
			insns:     unsafe.Pointer(&nothing[0]),
			license:   unsafe.Pointer(&license[0]),
		}), unsafe.Sizeof(progLoad{}))
		name := append([]byte(tracepoint), 0)
		bpf(bpfRawTracepointOpen, unsafe.Pointer(&rawTracepointOpen{
			name:   unsafe.Pointer(&name[0]),
			progFD: uint32(program),
		}), unsafe.Sizeof(rawTracepointOpen{}))
	}
	ready("-")
	obey(nil)
}

// bpf gives the file that a command makes.
func bpf(command uintptr, attributes unsafe.Pointer, size uintptr) uintptr {
	file, _, errno := syscall.Syscall(bpfNumber[runtime.GOARCH], command, uintptr(attributes), size)
	if errno != 0 {
		log.Fatalf("bpf command %d: %v", command, errno)
	}
	return file
}
