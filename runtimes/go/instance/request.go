package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// head is the head of a CALL: method, target, id and timeout, then names and values, separated by NUL.
type head struct {
	method, target string
	timeout        time.Duration
	// Names and values, as sent.
	pairs []string
}

func (h *head) parse(text string) bool {
	count := strings.Count(text, "\x00") + 1
	if count < 4 || count%2 != 0 {
		return false
	}
	fields := make([]string, 0, count)
	for {
		at := strings.IndexByte(text, 0)
		if at < 0 {
			break
		}
		fields = append(fields, text[:at])
		text = text[at+1:]
	}
	fields = append(fields, text)
	ms, err := strconv.ParseInt(fields[3], 10, 64)
	if err != nil || ms < 0 {
		return false
	}
	h.method, h.target, h.pairs = fields[0], fields[1], fields[4:]
	h.timeout = time.Duration(ms) * time.Millisecond
	return true
}

// request is what a server of net/http would make of the call. The error is of the path that the caller sent.
func (c *call) request() (*http.Request, error) {
	address, err := parseTarget(c.head.target)
	if err != nil {
		return nil, err
	}
	header, host := c.headers()
	request := http.Request{
		Method:        c.head.method,
		URL:           address,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        header,
		Body:          &c.body,
		ContentLength: c.contentLength(header),
		Host:          host,
		RequestURI:    c.head.target,
		RemoteAddr:    remoteAddress(header),
	}
	if request.ContentLength == 0 {
		request.Body = http.NoBody
	}
	return request.WithContext(c), nil
}

// headers are those of the call, without Host, which a server of net/http keeps apart.
func (c *call) headers() (header http.Header, host string) {
	pairs := c.head.pairs
	header = make(http.Header, len(pairs)/2)
	// One piece of memory for all values; a name with several gets its own.
	values := make([]string, 0, len(pairs)/2)
	for i := 0; i+1 < len(pairs); i += 2 {
		name := textproto.CanonicalMIMEHeaderKey(pairs[i])
		if name == "Host" {
			host = pairs[i+1]
			continue
		}
		if earlier, ok := header[name]; ok {
			header[name] = append(earlier, pairs[i+1])
			continue
		}
		values = append(values, pairs[i+1])
		at := len(values) - 1
		header[name] = values[at : at+1 : at+1]
	}
	return header, host
}

func (c *call) contentLength(header http.Header) int64 {
	if bytes, isWhole := c.body.wholeBytes(); isWhole {
		return bytes
	}
	if value := header["Content-Length"]; len(value) == 1 {
		if bytes, err := strconv.ParseInt(value[0], 10, 64); err == nil && bytes > 0 {
			return bytes
		}
	}
	return -1
}

// remoteAddress is whom the gateway got the call from, in the form that net/http gives it. The port is not known.
func remoteAddress(header http.Header) string {
	values := header["X-Forwarded-For"]
	if len(values) == 0 {
		return "127.0.0.1:0"
	}
	last := values[len(values)-1]
	peer := strings.TrimSpace(last[strings.LastIndexByte(last, ',')+1:])
	if strings.IndexByte(peer, ':') >= 0 {
		return "[" + peer + "]:0"
	}
	return peer + ":0"
}

func parseTarget(target string) (*url.URL, error) {
	if strings.IndexByte(target, '%') >= 0 {
		return url.ParseRequestURI(target)
	}
	mark := strings.IndexByte(target, '?')
	if mark < 0 {
		return &url.URL{Path: target}, nil
	}
	return &url.URL{Path: target[:mark], RawQuery: target[mark+1:], ForceQuery: mark == len(target)-1}, nil
}

// requestBody is filled by the goroutine that reads the link and emptied by the handler. Its fields are guarded by the
// call's mutex. The sender never has more than the window on its way: that bounds what waits here.
type requestBody struct {
	call     *call
	waiting  []byte
	ended    bool
	closed   bool
	received int64
	// Read, and not yet given back as credit.
	consumed int
}

var errBodyClosed = errors.New("http: invalid Read on closed Body")

// Credit is given back in pieces of this size: a frame for every read would cost more than the bytes.
const creditBytes = windowBytes / 4

func (b *requestBody) push(bytes []byte, ended bool) {
	c := b.call
	c.mutex.Lock()
	b.received += int64(len(bytes))
	if !b.closed && len(bytes) > 0 {
		b.waiting = append(b.waiting, bytes...)
	}
	b.ended = b.ended || ended
	c.changed.Broadcast()
	c.mutex.Unlock()
}

// wholeBytes says how long the body is, once it has come whole.
func (b *requestBody) wholeBytes() (int64, bool) {
	b.call.mutex.Lock()
	defer b.call.mutex.Unlock()
	return b.received, b.ended
}

func (b *requestBody) Read(into []byte) (int, error) {
	c := b.call
	c.mutex.Lock()
	for len(b.waiting) == 0 && !b.ended && !b.closed && c.err == nil && len(into) > 0 {
		c.changed.Wait()
	}
	if b.closed {
		c.mutex.Unlock()
		return 0, errBodyClosed
	}
	if len(b.waiting) == 0 {
		ended, reason := b.ended, c.err
		c.mutex.Unlock()
		switch {
		case ended:
			return 0, io.EOF
		case len(into) == 0:
			return 0, nil
		case reason == context.DeadlineExceeded:
			return 0, reason
		default:
			return 0, io.ErrUnexpectedEOF
		}
	}
	count := copy(into, b.waiting)
	b.waiting = b.waiting[count:]
	if len(b.waiting) == 0 {
		b.waiting = nil
	}
	b.consumed += count
	credit := 0
	if b.consumed >= creditBytes && !b.ended {
		credit, b.consumed = b.consumed, 0
	}
	c.mutex.Unlock()
	if credit > 0 {
		c.link.post(frameCredit, 0, c.stream, uint32(credit), "", nil)
	}
	return count, nil
}

// Close gives up the rest of the body.
func (b *requestBody) Close() error {
	c := b.call
	c.mutex.Lock()
	b.closed = true
	b.waiting = nil
	c.mutex.Unlock()
	return nil
}
