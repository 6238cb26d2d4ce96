package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"runtime/trace"
	"strconv"
	"strings"
	"syscall"
	"unsafe"
)

// obey does what the lines of standard input say, until it ends:
//
//	go           work, or tell, where there is something to do or to tell
//	trace        switches Go's execution tracer on, to nowhere; answers "tracing"
//	trace FILE   the same, to a file
//	stop         switches it off; answers "stopped" when all is written
//
// Standard input is a pipe, which Go reads without its netpoller: obeying makes no wait.
func obey(work func()) {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		command, argument, _ := strings.Cut(lines.Text(), " ")
		switch {
		case command == "go" && work != nil:
			work()
		case command == "trace":
			startTrace(argument)
			fmt.Println("tracing")
		case command == "stop":
			trace.Stop()
			fmt.Println("stopped")
		default:
			log.Fatalf("cannot %q", lines.Text())
		}
	}
}

// startTrace has the tracer write to the file of this name, or to nowhere. A reader of the trace finds the clock in it, as tests'
// exectrace wants it.
func startTrace(name string) {
	out := io.Discard
	if name != "" {
		file, err := os.Create(name)
		if err != nil {
			log.Fatal(err)
		}
		out = file
	}
	if err := trace.Start(out); err != nil {
		log.Fatal(err)
	}
	trace.Log(context.Background(), "nanotime", strconv.FormatInt(monotonic(), 10))
}

// monotonic is CLOCK_MONOTONIC, ns, which package time does not tell.
func monotonic() int64 {
	const clockMonotonic = 1
	var now syscall.Timespec
	_, _, errno := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, clockMonotonic, uintptr(unsafe.Pointer(&now)), 0)
	if errno != 0 {
		log.Fatal(errno)
	}
	return now.Nano()
}
