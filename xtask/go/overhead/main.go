// Command overhead is both sides of the loads by which the cost of watching a program is measured.
//
//	overhead server              HTTP, a short answer; /trace/start and /trace/stop switch Go's execution tracer, to nowhere
//	overhead proxy -target A     copies bytes between each connection and one to A
//	overhead echo                sends back what comes
//	overhead spin                computes, without a network; each line of standard input begins a measurement
//	overhead idle -target A      keeps connections to a server, each of which has asked once
//	overhead http -target A      asks a server, as fast as it can on some connections, or at a fixed rate
//	overhead pingpong -target A  sends a byte, waits for it, and again
//	overhead syscalls            makes system calls
//
// Those that stay print "READY pid addr" and end with their standard input. Those that measure print one line of
// JSON: how many operations in how many seconds, and their latencies.
package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"runtime/trace"
	"time"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) < 2 {
		log.Fatal("usage: overhead server|proxy|echo|spin|idle|http|pingpong|syscalls [flags]")
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	target := flags.String("target", "", "address of the other side")
	seconds := flags.Float64("seconds", 3, "how long to measure")
	connections := flags.Int("connections", 16, "how many connections")
	rate := flags.Float64("rate", 0, "requests a second; 0: as many as possible")
	_ = flags.Parse(os.Args[2:])
	time := time.Duration(*seconds * float64(time.Second))
	switch os.Args[1] {
	case "server":
		server()
	case "proxy":
		serve(func(near net.Conn) { proxy(near, *target) })
	case "echo":
		serve(func(connection net.Conn) { _, _ = io.Copy(connection, connection) })
	case "spin":
		spin(time)
	case "idle":
		idle(*target, *connections)
	case "http":
		loadHTTP(*target, *connections, *rate, time)
	case "pingpong":
		loadPingPong(*target, time)
	case "syscalls":
		loadSyscalls(time)
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

// endWithStdin blocks until standard input ends.
func endWithStdin() {
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func server() {
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	http.HandleFunc("/trace/start", func(http.ResponseWriter, *http.Request) {
		if err := trace.Start(io.Discard); err != nil {
			log.Fatal(err)
		}
	})
	http.HandleFunc("/trace/stop", func(http.ResponseWriter, *http.Request) { trace.Stop() })
	listener := listen()
	go func() { log.Fatal(http.Serve(listener, nil)) }()
	ready(listener.Addr().String())
	endWithStdin()
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
	endWithStdin()
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
