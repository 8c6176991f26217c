package main

import (
	"fmt"
	"io"
	"net/http"
)

// What the function exports under its handler's name, and where; set by a file that the build generates.
var (
	exported     interface{}
	exportedName string
	exportedFile string
	exportedLine int
)

// contract is how calls come to the handler.
type contract struct {
	// The handler needs request bodies whole.
	whole bool
	serve func(w *response, r *http.Request) *problem
}

// wholeHandler is a handler of a contract whose request has its body in one piece.
type wholeHandler func(w http.ResponseWriter, r *http.Request, body []byte) error

// adapters know contracts of packages that not every function imports; the build adds their files.
var adapters []func(exported interface{}) wholeHandler

func contractOf(exported interface{}) (contract, error) {
	switch handle := exported.(type) {
	case func(http.ResponseWriter, *http.Request):
		return streaming(handle), nil
	case http.Handler:
		return streaming(handle.ServeHTTP), nil
	case func([]byte) string:
		return whole(func(w http.ResponseWriter, r *http.Request, body []byte) error {
			_, err := io.WriteString(w, handle(body))
			return err
		}), nil
	}
	for _, adapter := range adapters {
		if handle := adapter(exported); handle != nil {
			return whole(handle), nil
		}
	}
	return contract{}, fmt.Errorf(
		"%s is a %T; write func %s(w http.ResponseWriter, r *http.Request)", exportedName, exported, exportedName)
}

func streaming(handle func(http.ResponseWriter, *http.Request)) contract {
	return contract{serve: func(w *response, r *http.Request) *problem {
		handle(w, r)
		return nil
	}}
}

func whole(handle wholeHandler) contract {
	return contract{whole: true, serve: func(w *response, r *http.Request) *problem {
		bytesMax := w.call.link.bodyBytesMax
		body, err := io.ReadAll(io.LimitReader(r.Body, bytesMax+1))
		if err == nil && int64(len(body)) > bytesMax {
			message := fmt.Sprintf("the body is longer than %d bytes; a http.HandlerFunc can stream it", bytesMax)
			return &problem{Reason: "body-too-large", Message: message}
		}
		if err == nil {
			err = handle(w, r, body)
		}
		if err != nil {
			return &problem{Reason: "threw", Type: typeOf(err), Message: cut(messageOf(err), messageBytesMax),
				File: exportedFile, Line: exportedLine}
		}
		return nil
	}}
}
