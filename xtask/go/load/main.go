// Command load waits in the network poller at a chosen rate: one wait for each byte that a reader gets.
//
// Its readers and its writer are the two ends of TCP connections over loopback. Each tick the writer sends one byte to
// each reader, which takes it and parks again.
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
	var received atomic.Int64
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
		go read(far, &received)
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
	// The benchmark reads this line, and after SIGTERM the next.
	fmt.Printf("ready %d functions %d\n", os.Getpid(), len(bulk))
	start := time.Now()
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	<-end
	fmt.Printf("waits per second %.0f\n", float64(received.Load())/time.Since(start).Seconds())
}

// read counts the bytes that come, one at a time.
func read(connection net.Conn, received *atomic.Int64) {
	buffer := make([]byte, 1)
	for {
		n, err := connection.Read(buffer)
		if err != nil {
			log.Fatal(err)
		}
		received.Add(int64(n))
	}
}
