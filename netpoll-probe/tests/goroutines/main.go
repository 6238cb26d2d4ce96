// goroutines parks goroutines on every kind of fd that Go polls, says of each what it waits for, and stays until stdin is closed.
//
// Usage: goroutines COUNT [idle]; idle: none of them runs. One line a goroutine on stdout, "GOID FD MODE KIND DEADLINE", in which
// MODE is read or write and DEADLINE says whether there is one, then "ready". Each line is written just before the goroutine parks.
package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"
)

var (
	// keep holds both ends of everything: what nothing reaches is closed by the garbage collector.
	keep []any
	lock sync.Mutex
	said sync.WaitGroup
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// goid is the number in the header of the goroutine's traceback.
func goid() int {
	buf := make([]byte, 64)
	buf = buf[:runtime.Stack(buf, false)]
	id, err := strconv.Atoi(string(bytes.Fields(buf)[1]))
	check(err)
	return id
}

func fdOf(c syscall.Conn) (fd uintptr) {
	raw, err := c.SyscallConn()
	check(err)
	check(raw.Control(func(f uintptr) { fd = f }))
	return fd
}

// park says what will be waited for, then waits, from a stack deep enough to have grown.
func park(c syscall.Conn, mode, kind string, deadline bool, wait func()) {
	said.Add(1)
	lock.Lock()
	keep = append(keep, c)
	lock.Unlock()
	go func() {
		id, fd := goid(), fdOf(c)
		lock.Lock()
		fmt.Println(id, fd, mode, kind, deadline)
		lock.Unlock()
		said.Done()
		deeper(20, wait)
		panic(kind + " came back")
	}()
}

//go:noinline
func deeper(depth int, wait func()) int {
	var room [64]byte
	if depth == 0 {
		wait()
		return int(room[0])
	}
	return deeper(depth-1, wait) + int(room[depth])
}

func read(c net.Conn) func() {
	return func() { c.Read(make([]byte, 1)) }
}

func tcpPair(l net.Listener) (*net.TCPConn, *net.TCPConn) {
	a, err := net.Dial("tcp", l.Addr().String())
	check(err)
	b, err := l.Accept()
	check(err)
	return a.(*net.TCPConn), b.(*net.TCPConn)
}

func main() {
	count, err := strconv.Atoi(os.Args[1])
	check(err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	for i := 0; i < count; i++ {
		a, b := tcpPair(l)
		keep = append(keep, a)
		if i%3 == 0 {
			check(b.SetReadDeadline(time.Now().Add(time.Hour)))
		}
		park(b, "read", "tcp", i%3 == 0, read(b))
	}
	for i := 0; i < 10; i++ {
		r, w, err := os.Pipe()
		check(err)
		keep = append(keep, w)
		park(r, "read", "pipe", false, func() { r.Read(make([]byte, 1)) })
		idle, err := net.Listen("tcp", "127.0.0.1:0")
		check(err)
		park(idle.(*net.TCPListener), "read", "accept", false, func() { idle.Accept() })
		u, err := net.ListenPacket("udp", "127.0.0.1:0")
		check(err)
		park(u.(*net.UDPConn), "read", "udp", false, func() { u.ReadFrom(make([]byte, 1)) })
		// A peer that never reads.
		a, b := tcpPair(l)
		keep = append(keep, a)
		park(b, "write", "tcp", false, func() { b.Write(make([]byte, 64<<20)) })
	}
	// Other states, which no IO wait is: a channel, a lock, a sleep, a running loop, a system call (below).
	go func() { select {} }()
	go func() { lock2 := make(chan int); <-lock2 }()
	go func() { time.Sleep(time.Hour) }()
	if len(os.Args) < 3 {
		go func() {
			for {
				runtime.Gosched()
			}
		}()
	}
	said.Wait()
	// Parked stacks are moved when they are shrunk, and waitsince is set.
	runtime.GC()
	runtime.GC()
	fmt.Println("ready")
	os.Stdin.Read(make([]byte, 1))
}
