package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
)

const (
	frameHello      = 1
	frameLoad       = 2
	frameLoaded     = 3
	frameLoadFailed = 4
	frameCall       = 5
	frameReply      = 6
	frameData       = 7
	frameCredit     = 8
	frameCancel     = 9
	frameFail       = 10
	framePing       = 11
	framePong       = 12
	frameStop       = 13

	flagEnd = 1
)

const (
	headerBytes     = 16
	payloadBytesMax = 65536
	windowBytes     = 262144
	readBytes       = 2 * payloadBytesMax
	// A buffer for frames that grew beyond this is not kept.
	keptBytesMax = 4 * payloadBytesMax
)

// link is the connection to the gateway. One goroutine reads it and never runs a handler, so that PING and CANCEL are
// seen while handlers are busy. Whoever has a frame to send appends it; the first to do so writes for all.
type link struct {
	conn         net.Conn
	contract     contract
	bodyBytesMax int64
	loading      []byte

	// How many calls are in progress. Atomic.
	active int64

	mutex   sync.Mutex
	pending []byte
	spare   []byte
	writing bool
	// By the lower 16 bits of their stream, which the gateway never has twice in use.
	calls    []*call
	stopping bool
}

func newLink(conn net.Conn) *link {
	return &link{conn: conn}
}

// post sends a frame, whole, behind those of earlier posts. It does not wait for the gateway to read it, unless it is
// this goroutine's turn to write.
func (l *link) post(kind, flags byte, stream, arg uint32, head string, body []byte) {
	var header [headerBytes]byte
	binary.LittleEndian.PutUint32(header[0:], uint32(len(head)+len(body)))
	header[4] = kind
	header[5] = flags
	binary.LittleEndian.PutUint32(header[8:], stream)
	binary.LittleEndian.PutUint32(header[12:], arg)

	l.mutex.Lock()
	l.pending = append(append(append(l.pending, header[:]...), head...), body...)
	if l.writing {
		l.mutex.Unlock()
		return
	}
	l.writing = true
	if atomic.LoadInt64(&l.active) > 1 {
		// Calls that came with this one answer in the same write.
		l.mutex.Unlock()
		runtime.Gosched()
		l.mutex.Lock()
	}
	l.write()
	l.writing = false
	l.exitWhenDone()
	l.mutex.Unlock()
}

// write is called and returns with the mutex held, and lets go of it meanwhile.
func (l *link) write() {
	for len(l.pending) > 0 {
		data := l.pending
		l.pending = l.spare[:0]
		l.spare = nil
		l.mutex.Unlock()
		if _, err := l.conn.Write(data); err != nil {
			os.Exit(0)
		}
		l.mutex.Lock()
		if cap(data) <= keptBytesMax {
			l.spare = data[:0]
		}
	}
}

// exitWhenDone is called with the mutex held.
func (l *link) exitWhenDone() {
	if l.stopping && !l.writing && len(l.pending) == 0 && atomic.LoadInt64(&l.active) == 0 {
		os.Exit(0)
	}
}

// read never returns: the process ends with the link.
func (l *link) read() {
	buffer := make([]byte, readBytes)
	start, end := 0, 0
	for {
		for end-start >= headerBytes {
			length := int(binary.LittleEndian.Uint32(buffer[start:]))
			if length > payloadBytesMax || binary.LittleEndian.Uint16(buffer[start+6:]) != 0 {
				broken(fmt.Sprintf("a frame of %d bytes, or for another instance", length))
			}
			next := start + headerBytes + length
			if next > end {
				break
			}
			l.take(buffer[start:start+headerBytes], buffer[start+headerBytes:next])
			start = next
		}
		if start > 0 {
			copy(buffer, buffer[start:end])
			start, end = 0, end-start
		}
		count, err := l.conn.Read(buffer[end:])
		if count == 0 || err != nil {
			os.Exit(0)
		}
		end += count
	}
}

// take handles one frame. What it keeps of the payload it copies.
func (l *link) take(header, payload []byte) {
	flags := header[5]
	stream := binary.LittleEndian.Uint32(header[8:])
	arg := binary.LittleEndian.Uint32(header[12:])
	switch header[4] {
	case frameCall:
		l.begin(stream, flags, payload, int(arg))
	case frameData:
		if stream == 0 {
			l.takeLoad(payload, flags)
		} else if c := l.callOf(stream); c != nil {
			c.body.push(payload, flags&flagEnd != 0)
		}
	case frameCredit:
		if c := l.callOf(stream); c != nil {
			c.addCredit(int(arg))
		}
	case frameCancel:
		if c := l.callOf(stream); c != nil {
			c.cancel(string(payload))
		}
	case framePing:
		l.post(framePong, 0, 0, arg, "", nil)
	case frameLoad:
		l.takeLoad(payload, flags)
	case frameStop:
		l.mutex.Lock()
		l.stopping = true
		l.exitWhenDone()
		l.mutex.Unlock()
	}
}

func (l *link) takeLoad(payload []byte, flags byte) {
	l.loading = append(l.loading, payload...)
	if flags&flagEnd == 0 {
		return
	}
	message := l.loading
	l.loading = nil
	l.load(message)
}

func (l *link) begin(stream uint32, flags byte, payload []byte, headLength int) {
	if headLength > len(payload) || stream == 0 || l.contract.serve == nil {
		broken("a CALL with a bad head, or before LOADED")
	}
	c := newCall(l, stream, string(payload[:headLength]))
	c.body.push(payload[headLength:], flags&flagEnd != 0)
	slot := int(stream & 0xffff)
	l.mutex.Lock()
	for slot >= len(l.calls) {
		l.calls = append(l.calls, nil)
	}
	l.calls[slot] = c
	l.mutex.Unlock()
	atomic.AddInt64(&l.active, 1)
	go c.run()
}

// callOf is nil for a stream that is over: its frames were on their way.
func (l *link) callOf(stream uint32) *call {
	slot := int(stream & 0xffff)
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if slot >= len(l.calls) || l.calls[slot] == nil || l.calls[slot].stream != stream {
		return nil
	}
	return l.calls[slot]
}

// forget is called before the last frame of a stream is sent: the gateway may use its place again at once.
func (l *link) forget(c *call) {
	l.mutex.Lock()
	l.calls[c.stream&0xffff] = nil
	l.mutex.Unlock()
}

// endCall is called with the mutex held, behind the last frame of a call.
func (l *link) endCall() {
	atomic.AddInt64(&l.active, -1)
	l.exitWhenDone()
}

func broken(what string) {
	fmt.Fprintln(os.Stderr, "fnway: the gateway sent", what)
	os.Exit(1)
}
