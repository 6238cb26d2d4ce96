package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"sort"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// result is what a measurement prints.
type result struct {
	Operations int     `json:"operations"`
	Seconds    float64 `json:"seconds"`
	P50NS      int64   `json:"p50_ns"`
	P99NS      int64   `json:"p99_ns"`
	P999NS     int64   `json:"p999_ns"`
	CPUNS      int64   `json:"cpu_ns"` // of this process, user and system
}

func report(operations int, took time.Duration, latencies []time.Duration) {
	sort.Slice(latencies, func(i, j int) bool { return latencies[i] < latencies[j] })
	quantile := func(perMille int) int64 {
		if len(latencies) == 0 {
			return 0
		}
		return latencies[min(len(latencies)*perMille/1000, len(latencies)-1)].Nanoseconds()
	}
	line, err := json.Marshal(result{
		operations, took.Seconds(), quantile(500), quantile(990), quantile(999), cpuTime().Nanoseconds(),
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(line))
}

// cpuTime is that of this process so far.
func cpuTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		log.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func dial(target string) net.Conn {
	connection, err := net.Dial("tcp", target)
	if err != nil {
		log.Fatal(err)
	}
	return connection
}

// onEach works on some connections at the same time, and gives the latencies of all.
func onEach(target string, connections int, work func(net.Conn) []time.Duration) (latencies []time.Duration) {
	var lock sync.Mutex
	var all sync.WaitGroup
	for range connections {
		connection := dial(target)
		all.Add(1)
		go func() {
			defer all.Done()
			defer connection.Close()
			own := work(connection)
			lock.Lock()
			defer lock.Unlock()
			latencies = append(latencies, own...)
		}()
	}
	all.Wait()
	return latencies
}

// loadHTTP asks at a fixed rate, by hand-written requests: net/http's client would cost more than the server. A request's latency
// counts from when it was due, so that a server which stands still is not excused from the requests of that time.
func loadHTTP(target string, connections int, rate float64, duration time.Duration) {
	interval := time.Duration(float64(connections) / rate * float64(time.Second))
	var begun atomic.Int64
	start := time.Now()
	latencies := onEach(target, connections, func(connection net.Conn) (own []time.Duration) {
		reader := bufio.NewReader(connection)
		// The connections take turns.
		due := start.Add(interval * time.Duration(begun.Add(1)) / time.Duration(connections))
		for time.Since(start) < duration {
			sleepUntil(due)
			ask(connection, reader)
			own = append(own, time.Since(due))
			due = due.Add(interval)
		}
		return own
	})
	report(len(latencies), time.Since(start), latencies)
}

// idle keeps connections in the server's keep-alive.
func idle(target string, connections int) {
	for range connections {
		connection := dial(target)
		defer connection.Close()
		ask(connection, bufio.NewReader(connection))
	}
	ready("-")
	obey(nil)
}

// sleepUntil does not come late by more than what the kernel's timer does.
func sleepUntil(due time.Time) {
	if wait := time.Until(due); wait > 0 {
		time.Sleep(wait)
	}
}

var request = []byte("GET / HTTP/1.1\r\nHost: overhead\r\n\r\n")

// ask sends a request and reads the answer, whose body is one line.
func ask(connection net.Conn, reader *bufio.Reader) {
	if _, err := connection.Write(request); err != nil {
		log.Fatal(err)
	}
	for {
		line, err := reader.ReadSlice('\n')
		if err != nil {
			log.Fatal(err)
		}
		if len(line) <= 2 {
			break
		}
	}
	if _, err := reader.ReadSlice('\n'); err != nil {
		log.Fatal(err)
	}
}

// loadPingPong sends a byte on each connection, waits for it, and again.
func loadPingPong(target string, connections int, duration time.Duration) {
	start := time.Now()
	latencies := onEach(target, connections, func(connection net.Conn) (own []time.Duration) {
		buffer := make([]byte, 1)
		for time.Since(start) < duration {
			begun := time.Now()
			if _, err := connection.Write(buffer); err != nil {
				log.Fatal(err)
			}
			if _, err := io.ReadFull(connection, buffer); err != nil {
				log.Fatal(err)
			}
			own = append(own, time.Since(begun))
		}
		return own
	})
	report(len(latencies), time.Since(start), latencies)
}

// loadSyscalls calls getppid, which does next to nothing in the kernel: what a hook on all system calls costs stands out.
func loadSyscalls(duration time.Duration) {
	const batch = 1000
	calls := 0
	start := time.Now()
	for time.Since(start) < duration {
		for range batch {
			syscall.Getppid()
		}
		calls += batch
	}
	report(calls, time.Since(start), nil)
}

// loadHash reads a file of 4 MiB in pieces of 4 KiB, again and again, and hashes them: a program that makes system calls as
// programs do. The pages are in the page cache.
func loadHash(duration time.Duration) {
	const pieces, piece = 1024, 4096
	file, err := os.CreateTemp("", "overhead")
	if err != nil {
		log.Fatal(err)
	}
	// Nobody else needs its name.
	if err := os.Remove(file.Name()); err != nil {
		log.Fatal(err)
	}
	buffer := make([]byte, piece)
	for range pieces {
		if _, err := file.Write(buffer); err != nil {
			log.Fatal(err)
		}
	}
	hash := sha256.New()
	hashed := 0
	start := time.Now()
	for time.Since(start) < duration {
		for i := range pieces {
			if _, err := file.ReadAt(buffer, int64(i)*piece); err != nil {
				log.Fatal(err)
			}
			hash.Write(buffer)
		}
		hashed += pieces
	}
	report(hashed, time.Since(start), nil)
}

// spin multiplies, as often as it can, whenever it is told to.
func spin(duration time.Duration) {
	const batch = 1_000_000
	value := uint64(os.Getpid())
	ready("-")
	obey(func() {
		rounds := 0
		start := time.Now()
		for time.Since(start) < duration {
			for range batch {
				value = value*6364136223846793005 + 1442695040888963407
			}
			rounds++
		}
		report(rounds, time.Since(start), nil)
	})
	// Or the compiler computes nothing.
	if value == 0 {
		fmt.Println("zero")
	}
}
