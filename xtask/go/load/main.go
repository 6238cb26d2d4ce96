// Command load waits in the network poller at a chosen rate, and counts its waits.
//
// Its readers and its writer are the two ends of TCP connections over loopback. Each tick the writer sends one byte to
// each reader, which takes what has come and waits again. A read that says EAGAIN is a wait: there are fewer of them than
// bytes when a reader is late and takes two bytes at once.
//
// SIGUSR1 prints how many waits there were so far, and when; SIGTERM ends it.
package main

import (
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
)

// bulk is how a generated file of this package keeps its functions in the executable.
var bulk []func(int) int

func main() {
	readers := flag.Int("readers", 50, "connections with a reader each")
	tick := flag.Duration("tick", time.Millisecond, "time between two bytes to each reader")
	flag.Parse()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	var waits atomic.Int64
	var connections []net.Conn
	for range make([]struct{}, *readers) {
		near, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			log.Fatal(err)
		}
		far, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		connections = append(connections, near)
		go read(far, &waits)
	}
	go func() {
		for range time.Tick(*tick) {
			for _, connection := range connections {
				if _, err := connection.Write([]byte{0}); err != nil {
					log.Fatal(err)
				}
			}
		}
	}()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGTERM)
	start := time.Now()
	// The benchmark reads this line, and for each SIGUSR1 the next.
	fmt.Printf("ready %d functions %d\n", os.Getpid(), len(bulk))
	for <-signals != syscall.SIGTERM {
		fmt.Printf("waits %d after %d ns\n", waits.Load(), time.Since(start).Nanoseconds())
	}
}

// read takes what comes, and counts how often it waits.
func read(connection net.Conn, waits *atomic.Int64) {
	raw, err := connection.(*net.TCPConn).SyscallConn()
	if err != nil {
		log.Fatal(err)
	}
	buffer := make([]byte, 64)
	err = raw.Read(func(fd uintptr) bool {
		for {
			n, err := syscall.Read(int(fd), buffer)
			switch {
			case err == syscall.EAGAIN:
				waits.Add(1)
				return false
			case err != nil || n == 0:
				log.Fatal("read: ", n, err)
			}
		}
	})
	log.Fatal(err)
}
