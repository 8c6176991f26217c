package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
)

// What a handler writes is held back up to this size, and goes in one frame with the head when that is all.
const heldBytesMax = 32768

const headTextMax = payloadBytesMax / 2

// response is the http.ResponseWriter of a call, and its http.Flusher. As in net/http it is the handler's goroutine that
// uses it.
type response struct {
	call   *call
	header http.Header
	// The status is settled, and with it the head.
	settled bool
	// The head, without a type that is guessed from the body.
	text      []byte
	typeKnown bool
	bodyless  bool
	// What the handler promised, or -1.
	length  int64
	written int64
	held    []byte
	// REPLY is on its way.
	sent    bool
	invalid string
}

func (w *response) Header() http.Header {
	if w.header == nil {
		w.header = make(http.Header)
	}
	return w.header
}

func (w *response) WriteHeader(status int) {
	if w.settled {
		fmt.Fprintln(os.Stderr, "http: superfluous response.WriteHeader call")
		return
	}
	if status >= 100 && status < 200 && status != http.StatusSwitchingProtocols {
		// Information before the answer does not travel on the link.
		return
	}
	w.settled = true
	w.length = -1
	if status < 200 || status > 599 {
		w.invalid = fmt.Sprintf("the handler answered with the status %d; it is one from 200 to 599", status)
		return
	}
	w.bodyless = status == http.StatusNoContent || status == http.StatusNotModified
	w.text = strconv.AppendInt(make([]byte, 0, 128), int64(status), 10)
	for name, values := range w.header {
		w.addHeader(name, values)
	}
	if len(w.text) > headTextMax {
		w.invalid = fmt.Sprintf("the reply's headers take %d bytes; %d are allowed", len(w.text), headTextMax)
	}
}

func (w *response) addHeader(name string, values []string) {
	switch name {
	case "Content-Type", "Content-Encoding":
		w.typeKnown = true
	case "Content-Length":
		if len(values) == 1 {
			if length, err := strconv.ParseInt(values[0], 10, 64); err == nil && length >= 0 {
				w.length = length
			}
		}
	}
	// Also leaves out those that stand for trailers, which the link does not have.
	if !isToken(name) {
		return
	}
	for _, value := range values {
		w.text = append(append(w.text, 0), name...)
		w.text = append(append(w.text, 0), clean(value)...)
	}
}

func (w *response) Write(data []byte) (int, error) {
	if err := w.admit(len(data)); err != nil {
		return 0, err
	}
	if len(w.held)+len(data) <= heldBytesMax {
		if w.held == nil && len(data) < 512 {
			w.held = make([]byte, 0, 512)
		}
		w.held = append(w.held, data...)
		return len(data), nil
	}
	if err := w.push(data); err != nil {
		return 0, err
	}
	return len(data), nil
}

func (w *response) WriteString(text string) (int, error) {
	return w.Write([]byte(text))
}

// admit says whether so many bytes more may be written.
func (w *response) admit(count int) error {
	if !w.settled {
		w.WriteHeader(http.StatusOK)
	}
	if w.invalid != "" {
		return errors.New(w.invalid)
	}
	if w.bodyless && count > 0 {
		return http.ErrBodyNotAllowed
	}
	w.written += int64(count)
	if w.length >= 0 && w.written > w.length {
		return http.ErrContentLength
	}
	return nil
}

func (w *response) Flush() {
	w.FlushError()
}

// FlushError is what http.ResponseController looks for.
func (w *response) FlushError() error {
	if err := w.admit(0); err != nil {
		return err
	}
	return w.push(nil)
}

// EnableFullDuplex: bodies go both ways at once in any case.
func (w *response) EnableFullDuplex() error {
	return nil
}

// push sends what is held, and then `data`.
func (w *response) push(data []byte) error {
	if w.call.isCancelled() {
		return w.gone()
	}
	if !w.sent {
		w.sent = true
		first := w.held
		if len(first) == 0 {
			first = data
		}
		text := w.headText(first)
		w.call.link.post(frameReply, 0, w.call.stream, uint32(len(text)), text, nil)
	}
	for _, part := range [2][]byte{w.held, data} {
		for len(part) > 0 {
			wanted := len(part)
			if wanted > payloadBytesMax {
				wanted = payloadBytesMax
			}
			count := w.call.takeCredit(wanted)
			if count == 0 {
				return w.gone()
			}
			w.call.link.post(frameData, 0, w.call.stream, 0, "", part[:count])
			part = part[count:]
		}
	}
	w.held = w.held[:0]
	return nil
}

func (w *response) gone() error {
	if err := w.call.Err(); err != nil {
		return err
	}
	return context.Canceled
}

// headText is the head as it is sent. Without a type of the handler's it has the one that the body looks like.
func (w *response) headText(body []byte) string {
	if !w.typeKnown && len(body) > 0 {
		w.text = append(append(w.text, "\x00Content-Type\x00"...), http.DetectContentType(body)...)
	}
	return string(w.text)
}

// finish ends the stream when the handler has returned.
func (w *response) finish() {
	c := w.call
	if !w.settled {
		w.WriteHeader(http.StatusOK)
	}
	if c.isCancelled() {
		w.cancelled("")
		return
	}
	if w.invalid != "" {
		w.fail(&problem{Reason: "reply-invalid", Message: w.invalid})
		return
	}
	if !w.sent {
		text := w.headText(w.held)
		c.link.forget(c)
		c.link.post(frameReply, flagEnd, c.stream, uint32(len(text)), text, w.held)
		return
	}
	if len(w.held) > 0 && w.push(nil) != nil {
		w.cancelled("")
		return
	}
	if w.length > w.written && c.head.method != http.MethodHead {
		w.cancelled(fmt.Sprintf("the function promised %d bytes and wrote %d", w.length, w.written))
		return
	}
	c.link.forget(c)
	c.link.post(frameData, flagEnd, c.stream, 0, "", nil)
}

// fail ends the stream of a call that went wrong, and says so in the log.
func (w *response) fail(p *problem) {
	c := w.call
	if c.isCancelled() {
		w.cancelled("")
		return
	}
	fmt.Fprintln(os.Stderr, p.text())
	if w.sent {
		w.cancelled("the function broke off its answer: " + p.Message)
		return
	}
	payload, _ := json.Marshal(p)
	c.link.forget(c)
	c.link.post(frameFail, 0, c.stream, 0, "", payload)
}

func (w *response) cancelled(text string) {
	c := w.call
	c.link.forget(c)
	c.link.post(frameCancel, 0, c.stream, 0, cut(text, messageBytesMax), nil)
}

// isToken: what the name of a header may be.
func isToken(name string) bool {
	for i := 0; i < len(name); i++ {
		b := name[i]
		isLetter := 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || '0' <= b && b <= '9'
		if !isLetter && strings.IndexByte("!#$%&'*+-.^_`|~", b) < 0 {
			return false
		}
	}
	return name != ""
}

// clean takes from a value what a header cannot carry, as net/http does.
func clean(value string) string {
	isClean := true
	for i := 0; i < len(value); i++ {
		if b := value[i]; b < ' ' && b != '\t' || b == 0x7f {
			isClean = false
			break
		}
	}
	if isClean {
		return strings.Trim(value, " \t")
	}
	cleaned := bytes.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r == 0x7f {
			return ' '
		}
		return r
	}, []byte(value))
	return strings.Trim(string(cleaned), " \t")
}
