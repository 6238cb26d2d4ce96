package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"sort"
	"sync"
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
}

func report(operations int, took time.Duration, latencies []time.Duration) {
	sort.Slice(latencies, func(i, j int) bool { return latencies[i] < latencies[j] })
	quantile := func(perMille int) int64 {
		if len(latencies) == 0 {
			return 0
		}
		return latencies[min(len(latencies)*perMille/1000, len(latencies)-1)].Nanoseconds()
	}
	line, err := json.Marshal(result{operations, took.Seconds(), quantile(500), quantile(990), quantile(999)})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(line))
}

func dial(target string) net.Conn {
	connection, err := net.Dial("tcp", target)
	if err != nil {
		log.Fatal(err)
	}
	return connection
}

// loadHTTP asks by hand-written requests: net/http's client would cost more than the server. At a fixed rate a request's latency
// counts from when it was due, so that a server which stands still is not excused from the requests of that time.
func loadHTTP(target string, connections int, rate float64, duration time.Duration) {
	var lock sync.Mutex
	var all sync.WaitGroup
	var latencies []time.Duration
	interval := time.Duration(0)
	if rate > 0 {
		interval = time.Duration(float64(connections) / rate * float64(time.Second))
	}
	start := time.Now()
	for i := range connections {
		connection := dial(target)
		all.Add(1)
		go func() {
			defer all.Done()
			defer connection.Close()
			reader := bufio.NewReader(connection)
			var own []time.Duration
			due := start.Add(interval * time.Duration(i) / time.Duration(connections))
			for time.Since(start) < duration {
				if interval > 0 {
					sleepUntil(due)
				} else {
					due = time.Now()
				}
				ask(connection, reader)
				own = append(own, time.Since(due))
				due = due.Add(interval)
			}
			lock.Lock()
			defer lock.Unlock()
			latencies = append(latencies, own...)
		}()
	}
	all.Wait()
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
	endWithStdin()
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

func loadPingPong(target string, duration time.Duration) {
	connection := dial(target)
	var latencies []time.Duration
	buffer := make([]byte, 1)
	start := time.Now()
	for time.Since(start) < duration {
		begun := time.Now()
		if _, err := connection.Write(buffer); err != nil {
			log.Fatal(err)
		}
		if _, err := io.ReadFull(connection, buffer); err != nil {
			log.Fatal(err)
		}
		latencies = append(latencies, time.Since(begun))
	}
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

// spin multiplies, as often as it can, whenever a line comes.
func spin(duration time.Duration) {
	const batch = 1_000_000
	ready("-")
	lines := bufio.NewScanner(os.Stdin)
	value := uint64(os.Getpid())
	for lines.Scan() {
		rounds := 0
		start := time.Now()
		for time.Since(start) < duration {
			for range batch {
				value = value*6364136223846793005 + 1442695040888963407
			}
			rounds++
		}
		report(rounds, time.Since(start), nil)
	}
	// Or the compiler computes nothing.
	if value == 0 {
		fmt.Println("zero")
	}
}
