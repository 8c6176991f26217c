package main

import (
	"net/http"

	handler "github.com/openfaas/templates-sdk/go-http"
)

// The contract of OpenFaaS' golang-http template. An error that a handler returns is a failure of the function.
func init() {
	adapters = append(adapters, func(exported interface{}) wholeHandler {
		handle, ok := exported.(func(handler.Request) (handler.Response, error))
		if !ok {
			return nil
		}
		return func(w http.ResponseWriter, r *http.Request, body []byte) error {
			request := handler.Request{
				Body:        body,
				Header:      r.Header,
				Host:        r.Host,
				Method:      r.Method,
				QueryString: r.URL.RawQuery,
			}
			request.WithContext(r.Context())
			reply, err := handle(request)
			if err != nil {
				return err
			}
			for name, values := range reply.Header {
				w.Header()[http.CanonicalHeaderKey(name)] = values
			}
			if reply.StatusCode != 0 {
				w.WriteHeader(reply.StatusCode)
			}
			_, err = w.Write(reply.Body)
			if err == http.ErrBodyNotAllowed {
				return nil
			}
			return err
		}
	})
}
