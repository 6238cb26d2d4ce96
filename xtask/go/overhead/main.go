// Command overhead is both sides of the loads by which the cost of watching a program is measured.
//
//	overhead server              HTTP, a short answer
//	overhead proxy -target A     copies bytes between each connection and one to A
//	overhead echo                sends back what comes
//	overhead empty -on A,B       has eBPF programs that do nothing on these tracepoints
//	overhead least -on A,B       has such as do the least that a wait of a process, -pid, takes
//	overhead spin                computes, without a network
//	overhead idle -target A      keeps connections to a server, each of which has asked once
//	overhead http -target A      asks a server on some connections, at a fixed rate
//	overhead pingpong -target A  sends a byte on some connections, waits for it, and again
//	overhead syscalls            makes system calls that do nothing
//	overhead hash                reads a file in small pieces, and hashes them
//
// Those that stay print "READY pid addr", obey the lines of their standard input, and end with it (obey.go). Those that
// measure print one line of JSON: how many operations in how many seconds, their latencies, and what CPU time they took.
package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"time"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) < 2 {
		log.Fatal("usage: overhead server|proxy|echo|empty|least|spin|idle|http|pingpong|syscalls|hash [flags]")
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	target := flags.String("target", "", "address of the other side")
	seconds := flags.Float64("seconds", 3, "how long to measure")
	connections := flags.Int("connections", 16, "how many connections")
	pid := flags.Int("pid", 0, "process whose waits are meant")
	on := flags.String("on", "", "tracepoints, by comma")
	timed := flags.Bool("timed", false, "let the kernel time eBPF programs")
	rate := flags.Float64("rate", 1000, "requests a second")
	_ = flags.Parse(os.Args[2:])
	time := time.Duration(*seconds * float64(time.Second))
	switch os.Args[1] {
	case "server":
		server()
	case "proxy":
		serve(func(near net.Conn) { proxy(near, *target) })
	case "echo":
		serve(func(connection net.Conn) { _, _ = io.Copy(connection, connection) })
	case "empty":
		floor(*on, *timed, nothing, nil)
	case "least":
		of, tell := least(*pid)
		floor(*on, *timed, of, tell)
	case "spin":
		spin(time)
	case "idle":
		idle(*target, *connections)
	case "http":
		loadHTTP(*target, *connections, *rate, time)
	case "pingpong":
		loadPingPong(*target, *connections, time)
	case "syscalls":
		loadSyscalls(time)
	case "hash":
		loadHash(time)
	default:
		log.Fatalf("no command %q", os.Args[1])
	}
}

func ready(addr string) {
	fmt.Printf("READY %d %s\n", os.Getpid(), addr)
}

func listen() net.Listener {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	return listener
}

func server() {
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	listener := listen()
	go func() { log.Fatal(http.Serve(listener, nil)) }()
	ready(listener.Addr().String())
	obey(nil)
}

func serve(handle func(net.Conn)) {
	listener := listen()
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				log.Fatal(err)
			}
			go func() {
				defer connection.Close()
				handle(connection)
			}()
		}
	}()
	ready(listener.Addr().String())
	obey(nil)
}

func proxy(near net.Conn, target string) {
	far, err := net.Dial("tcp", target)
	if err != nil {
		log.Fatal(err)
	}
	defer far.Close()
	go func() {
		_, _ = io.Copy(far, near)
		// Or the other side keeps its connection, and this one its files, for ever.
		_ = far.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(near, far)
}
