package main

import (
	"log"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

// enableRunTime is BPF_STATS_RUN_TIME (linux/bpf.h).
const enableRunTime = 0

// program makes what runs on a tracepoint.
type program func(tracepoint string) asm.Instructions

// nothing is what hooks cost by themselves.
func nothing(string) asm.Instructions {
	return asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}
}

// floor runs programs on these tracepoints until it ends, and calls `tell` when it is told to. Where they are timed the kernel counts what
// they take, and what its own reading of the clock does.
func floor(tracepoints string, timed bool, of program, tell func()) {
	if timed {
		stats, err := ebpf.EnableStats(enableRunTime)
		if err != nil {
			log.Fatal(err)
		}
		defer stats.Close()
	}
	for _, tracepoint := range strings.Split(tracepoints, ",") {
		loaded, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Type:         ebpf.Tracing,
			AttachType:   ebpf.AttachTraceRawTp,
			AttachTo:     tracepoint,
			Instructions: of(tracepoint),
			License:      "GPL",
		})
		if err != nil {
			log.Fatalf("%s: %+v", tracepoint, err)
		}
		attached, err := link.AttachTracing(link.TracingOptions{Program: loaded})
		if err != nil {
			log.Fatalf("%s: %v", tracepoint, err)
		}
		defer attached.Close()
		defer loaded.Close()
	}
	ready("-")
	obey(tell)
}
