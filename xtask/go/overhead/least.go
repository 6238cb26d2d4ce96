package main

import (
	"fmt"
	"log"
	"runtime"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// machine is where things are.
type machine struct {
	// Offsets in struct pt_regs (arch/x86/include/asm/ptrace.h, arch/arm64/include/asm/ptrace.h): the number of the system call, its first two
	// arguments, the stack pointer, and the register that has the runtime.g (ABIInternal).
	number, first, second, stack, g int16
	numberSize                      asm.Size
	// System calls.
	read, poll int32
	// struct epoll_event (linux/eventpoll.h): its size, and where its data is.
	event, data int16
	// runtime/tagptr_64bit.go, taggedPointer: a pollDesc's address is what is above these, in units of so many bits. Go 1.25.4 and newer.
	tagBits, alignBits int32
}

var machines = map[string]machine{
	"amd64": {120, 112, 104, 152, 8, asm.DWord, 0, 281, 12, 4, 24, 9},
	"arm64": {280, 272, 8, 248, 28 * 8, asm.Word, 63, 22, 16, 8, 24, 9},
}

const (
	// runtime.g.stack.hi and runtime.g.goid (runtime/runtime2.go), runtime.pollDesc.fd (runtime/netpoll.go) of the Go that this is built by,
	// which what is watched is built by, too.
	stackHi, goid, pollDescFD = 8, 152, 8
	// What stands in a pollDesc of its fd and of who waits.
	pollDescBytes = 64
	// Of a stack, as netpoll-probe copies it.
	stackBytes = 4096
	// Events of a poll.
	events = 16
	// Slots, sockets, and records of a CPU.
	placesBits, places = 12, 1 << placesBits
)

// A slot, by fd: when a wait began (0: none did), when something came, when it was polled, of which goroutine; its socket.
const (
	start, came, polled, goroutine, socket, slotBytes = 0, 8, 16, 24, 32, 64
)

// A socket, by some bits of its address: the address, and its slot.
const (
	address, slot, socketBytes = 0, 8, 16
)

// A record, as long as netpoll-probe's; and where the next one goes, on a cache line of its own.
const recordBytes, cursorBytes = 128, 64

// tables is what the programs share.
type tables struct {
	slots, sockets, records, cursors, scratch *ebpf.Map
}

// least does for each wait of a process what nobody can leave out who wants to tell which goroutine waited on which fd, how long and why, and
// nothing else: the clock when a wait begins, when something comes, when it is polled and when it ends; a copy of the goroutine and of its
// stack, of the polled events and of their pollDescs; and a record, which nobody reads. It knows what a wait is that READ(2) shows, on a
// socket that never becomes another one's; follows no stack, names nothing, and counts nothing.
//
// The second result prints how many waits there were.
func least(pid int) (program, func()) {
	m, known := machines[runtime.GOARCH]
	if !known {
		log.Fatalf("nothing is known of %s", runtime.GOARCH)
	}
	table := func(kind ebpf.MapType, valueBytes, count int) *ebpf.Map {
		made, err := ebpf.NewMap(&ebpf.MapSpec{
			Type: kind, KeySize: 4, ValueSize: uint32(valueBytes), MaxEntries: uint32(count),
		})
		if err != nil {
			log.Fatal(err)
		}
		return made
	}
	cpus := ebpf.MustPossibleCPU()
	t := tables{
		slots:   table(ebpf.Array, slotBytes, places),
		sockets: table(ebpf.Array, socketBytes, places),
		records: table(ebpf.Array, recordBytes, cpus*places),
		cursors: table(ebpf.Array, cursorBytes, cpus),
		scratch: table(ebpf.PerCPUArray, 2*stackBytes, 1),
	}
	way := wayToSocket()
	of := func(tracepoint string) asm.Instructions {
		switch tracepoint {
		case "sys_exit":
			return sysExit(m, pid, t, way)
		case "sk_data_ready":
			return dataReady(t)
		default:
			return nothing(tracepoint)
		}
	}
	tell := func() {
		var waits uint64
		for cpu := range uint32(cpus) {
			var cursor [cursorBytes / 8]uint64
			if err := t.cursors.Lookup(cpu, &cursor); err != nil {
				log.Fatal(err)
			}
			waits += cursor[0]
		}
		fmt.Printf("{\"waits\":%d}\n", waits)
	}
	return of, tell
}

// way is from a task to the socket of one of its fds: offsets in what the one before leads to.
type way struct{ files, fdt, fd, socket, sk int32 }

// wayToSocket is the way in this kernel.
func wayToSocket() way {
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		log.Fatal(err)
	}
	offset := func(name, member string) int32 {
		var of *btf.Struct
		if err := kernel.TypeByName(name, &of); err != nil {
			log.Fatal(err)
		}
		for _, it := range of.Members {
			if it.Name == member {
				return int32(it.Offset.Bytes())
			}
		}
		log.Fatalf("struct %s has no %s", name, member)
		return 0
	}
	return way{
		offset("task_struct", "files"),
		offset("files_struct", "fdt"),
		offset("fdtable", "fd"),
		offset("file", "private_data"),
		offset("socket", "sk"),
	}
}

// find puts the place of a table's value into r0, by the number in `index`.
func find(table *ebpf.Map, index asm.Register) asm.Instructions {
	return asm.Instructions{
		asm.StoreMem(asm.RFP, -4, index, asm.Word),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.LoadMapPtr(asm.R1, table.FD()),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
	}
}

// copyFrom copies r2 bytes from the address in `from` in the process to `to`.
func copyFrom(from, to asm.Register) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R1, to),
		asm.Mov.Reg(asm.R3, from),
		asm.FnProbeReadUser.Call(),
	}
}

func joined(parts ...asm.Instructions) (all asm.Instructions) {
	for _, part := range parts {
		all = append(all, part...)
	}
	return all
}

// labelled lets jumps lead to the first of some instructions.
func labelled(label string, code asm.Instructions) asm.Instructions {
	code[0] = code[0].WithSymbol(label)
	return code
}

// socketOf makes of the low bits of an address, in a register, where its socket stands in the table: they are spread by 2^32 divided by the
// golden ratio, as addresses lie in equal steps.
func socketOf(address asm.Register) asm.Instructions {
	const golden = 0x9e3779b1 - 1<<32
	return asm.Instructions{asm.Mul.Imm32(address, golden), asm.RSh.Imm32(address, 32-placesBits)}
}

// dataReady runs when something comes on a socket of any process.
func dataReady(t tables) asm.Instructions {
	return joined(
		asm.Instructions{
			asm.LoadMem(asm.R7, asm.R1, 0, asm.DWord),
			asm.Mov.Reg(asm.R6, asm.R7),
			// A number, to the verifier: it allows no other arithmetic with a pointer.
			asm.Sub.Imm32(asm.R6, 0),
		},
		socketOf(asm.R6),
		find(t.sockets, asm.R6),
		asm.Instructions{
			asm.LoadMem(asm.R1, asm.R0, address, asm.DWord),
			asm.JNE.Reg(asm.R1, asm.R7, "out"),
			asm.LoadMem(asm.R6, asm.R0, slot, asm.DWord),
		},
		find(t.slots, asm.R6),
		asm.Instructions{
			asm.LoadMem(asm.R1, asm.R0, start, asm.DWord),
			asm.JEq.Imm(asm.R1, 0, "out"),
			asm.LoadMem(asm.R1, asm.R0, came, asm.DWord),
			asm.JNE.Imm(asm.R1, 0, "out"),
			asm.Mov.Reg(asm.R6, asm.R0),
			asm.FnKtimeGetNs.Call(),
			asm.StoreMem(asm.R6, came, asm.R0, asm.DWord),
			asm.Mov.Imm(asm.R0, 0).WithSymbol("out"),
			asm.Return(),
		},
	)
}

// sysExit runs when a system call of any process returns. r6 is its registers, r7 what it returns, then what its part makes of both.
func sysExit(m machine, pid int, t tables, way way) asm.Instructions {
	return joined(
		asm.Instructions{
			asm.LoadMem(asm.R6, asm.R1, 0, asm.DWord),
			asm.LoadMem(asm.R7, asm.R1, 8, asm.DWord),
			asm.LoadMem(asm.R8, asm.R6, m.number, m.numberSize),
			asm.JEq.Imm(asm.R8, m.read, "of whom"),
			asm.JNE.Imm(asm.R8, m.poll, "out"),
			asm.FnGetCurrentPidTgid.Call().WithSymbol("of whom"),
			asm.RSh.Imm(asm.R0, 32),
			asm.JNE.Imm(asm.R0, int32(pid), "out"),
			asm.JEq.Imm(asm.R8, m.poll, "poll"),
			asm.LoadMem(asm.R9, asm.R6, m.first, asm.DWord),
			asm.And.Imm(asm.R9, places-1),
		},
		find(t.slots, asm.R9),
		asm.Instructions{
			asm.Mov.Reg(asm.R8, asm.R0),
			asm.JEq.Imm(asm.R7, -int32(syscall.EAGAIN), "begin"),
			asm.LoadMem(asm.R1, asm.R8, start, asm.DWord),
			asm.JNE.Imm(asm.R1, 0, "end"),
			asm.Mov.Imm(asm.R0, 0).WithSymbol("out"),
			asm.Return(),
		},
		labelled("begin", begin(m, t, way)),
		labelled("end", end(t)),
		labelled("poll", poll(m, t)),
	)
}

// begin is told to come again: r8 is the slot of the fd in r9.
func begin(m machine, t tables, way way) asm.Instructions {
	return joined(
		asm.Instructions{
			asm.LoadMem(asm.R1, asm.R8, socket, asm.DWord),
			asm.JEq.Imm(asm.R1, 0, "learn"),
			asm.FnKtimeGetNs.Call().WithSymbol("known"),
			asm.Mov.Imm(asm.R1, 0),
			asm.StoreMem(asm.R8, came, asm.R1, asm.DWord),
			asm.StoreMem(asm.R8, polled, asm.R1, asm.DWord),
			asm.StoreMem(asm.R8, start, asm.R0, asm.DWord),
			asm.Mov.Imm(asm.R9, 0),
		},
		find(t.scratch, asm.R9),
		asm.Instructions{
			asm.Mov.Reg(asm.R9, asm.R0),
			asm.LoadMem(asm.R7, asm.R6, m.g, asm.DWord),
			asm.Mov.Imm(asm.R2, goid+8),
		},
		copyFrom(asm.R7, asm.R9),
		asm.Instructions{
			asm.LoadMem(asm.R1, asm.R9, goid, asm.DWord),
			asm.StoreMem(asm.R8, goroutine, asm.R1, asm.DWord),
			asm.LoadMem(asm.R2, asm.R9, stackHi, asm.DWord),
			asm.LoadMem(asm.R7, asm.R6, m.stack, asm.DWord),
			asm.Sub.Reg(asm.R2, asm.R7),
			asm.JLE.Imm(asm.R2, stackBytes, "stack"),
			asm.Mov.Imm(asm.R2, stackBytes),
			asm.And.Imm(asm.R2, 2*stackBytes-1).WithSymbol("stack"),
		},
		copyFrom(asm.R7, asm.R9),
		asm.Instructions{asm.Ja.Label("out")},
		labelled("learn", learn(t, way)),
	)
}

// learn finds the socket of the fd in r9, whose slot is r8, for ever.
func learn(t tables, way way) asm.Instructions {
	// Follows the pointer at r0 + offset.
	follow := func(offset int32) asm.Instructions {
		return asm.Instructions{
			asm.Mov.Reg(asm.R3, asm.R0),
			asm.Add.Imm(asm.R3, offset),
			asm.Mov.Reg(asm.R1, asm.RFP),
			asm.Add.Imm(asm.R1, -16),
			asm.Mov.Imm(asm.R2, 8),
			asm.FnProbeReadKernel.Call(),
			asm.LoadMem(asm.R0, asm.RFP, -16, asm.DWord),
		}
	}
	return joined(
		asm.Instructions{
			asm.Mov.Reg(asm.R7, asm.R9),
			asm.LSh.Imm(asm.R7, 3),
			asm.FnGetCurrentTask.Call(),
		},
		follow(way.files), follow(way.fdt), follow(way.fd),
		asm.Instructions{asm.Add.Reg(asm.R0, asm.R7)},
		follow(0), follow(way.socket), follow(way.sk),
		asm.Instructions{
			asm.StoreMem(asm.R8, socket, asm.R0, asm.DWord),
			asm.Mov.Reg(asm.R7, asm.R0),
		},
		socketOf(asm.R7),
		find(t.sockets, asm.R7),
		asm.Instructions{
			asm.LoadMem(asm.R1, asm.R8, socket, asm.DWord),
			asm.StoreMem(asm.R0, address, asm.R1, asm.DWord),
			asm.StoreMem(asm.R0, slot, asm.R9, asm.DWord),
			asm.Ja.Label("known"),
		},
	)
}

// end is when what was waited for is read: r8 is the fd's slot.
func end(t tables) asm.Instructions {
	fields := asm.Instructions{}
	for _, field := range []int16{start, came, polled, goroutine} {
		fields = append(fields, asm.LoadMem(asm.R1, asm.R8, field, asm.DWord), asm.StoreMem(asm.R0, field, asm.R1, asm.DWord))
	}
	for field := int16(goroutine + 8); field < recordBytes; field += 8 {
		fields = append(fields, asm.StoreMem(asm.R0, field, asm.R9, asm.DWord))
	}
	return joined(
		asm.Instructions{
			asm.FnKtimeGetNs.Call(),
			asm.Mov.Reg(asm.R9, asm.R0),
			asm.FnGetSmpProcessorId.Call(),
			asm.Mov.Reg(asm.R7, asm.R0),
		},
		find(t.cursors, asm.R7),
		asm.Instructions{
			asm.Mov.Reg(asm.R6, asm.R0),
			asm.LoadMem(asm.R1, asm.R6, 0, asm.DWord),
			asm.And.Imm(asm.R1, places-1),
			asm.Mul.Imm(asm.R7, places),
			asm.Add.Reg(asm.R7, asm.R1),
		},
		find(t.records, asm.R7),
		fields,
		asm.Instructions{
			asm.LoadMem(asm.R1, asm.R6, 0, asm.DWord),
			asm.Add.Imm(asm.R1, 1),
			asm.StoreMem(asm.R6, 0, asm.R1, asm.DWord),
			asm.Mov.Imm(asm.R1, 0),
			asm.StoreMem(asm.R8, start, asm.R1, asm.DWord),
			asm.Ja.Label("out"),
		},
	)
}

// poll is the collecting of r7 events, whose array is the second argument.
func poll(m machine, t tables) asm.Instructions {
	each := asm.Instructions{}
	for i := range int16(events) {
		next := fmt.Sprint("event ", i+1)
		each = joined(each,
			asm.Instructions{
				asm.JSLE.Imm(asm.R7, int32(i), "out").WithSymbol(fmt.Sprint("event ", i)),
				asm.LoadMem(asm.R6, asm.R9, i*m.event+m.data, asm.DWord),
				asm.ArSh.Imm(asm.R6, m.tagBits),
				asm.LSh.Imm(asm.R6, m.alignBits),
				asm.Mov.Reg(asm.R1, asm.R9),
				asm.Add.Imm(asm.R1, stackBytes),
				asm.Mov.Imm(asm.R2, pollDescBytes),
				asm.Mov.Reg(asm.R3, asm.R6),
				asm.FnProbeReadUser.Call(),
				asm.LoadMem(asm.R6, asm.R9, stackBytes+pollDescFD, asm.DWord),
				asm.And.Imm(asm.R6, places-1),
			},
			find(t.slots, asm.R6),
			asm.Instructions{
				asm.LoadMem(asm.R1, asm.R0, start, asm.DWord),
				asm.JEq.Imm(asm.R1, 0, next),
				asm.StoreMem(asm.R0, polled, asm.R8, asm.DWord),
			},
		)
	}
	return joined(
		asm.Instructions{
			asm.JSLE.Imm(asm.R7, 0, "out"),
			asm.Mov.Imm(asm.R9, 0),
		},
		find(t.scratch, asm.R9),
		asm.Instructions{
			asm.Mov.Reg(asm.R9, asm.R0),
			asm.LoadMem(asm.R6, asm.R6, m.second, asm.DWord),
			asm.Mov.Reg(asm.R2, asm.R7),
			asm.Mul.Imm(asm.R2, int32(m.event)),
			asm.And.Imm(asm.R2, stackBytes-1),
		},
		copyFrom(asm.R6, asm.R9),
		asm.Instructions{
			asm.FnKtimeGetNs.Call(),
			asm.Mov.Reg(asm.R8, asm.R0),
		},
		each,
		asm.Instructions{asm.Ja.Label("out").WithSymbol(fmt.Sprint("event ", events))},
	)
}
