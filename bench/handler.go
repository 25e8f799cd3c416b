package main

import (
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

// document is a JSON object of some bytes.
func document(size int) []byte {
	const head, tail = `{"id":7,"state":"paid","note":"`, `"}`
	return []byte(head + strings.Repeat("n", size-len(head)-len(tail)) + tail)
}

// picture is some bytes that do not repeat, so that one that is out of place is noticed.
func picture(size int) []byte {
	p := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{}).Read(p) // it never fails
	return p
}

// answer is a handler that always answers with body.
func answer(body []byte, contentType string) http.Handler {
	length := strconv.Itoa(len(body))
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Content-Length", length)
		_, _ = w.Write(body) // the caller sees it if that fails
	})
}

// count is a handler that answers with the length of what it was sent.
func count() http.Handler {
	buffers := sync.Pool{New: func() any { return new([chunkSize]byte) }}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		buffer, _ := buffers.Get().(*[chunkSize]byte)
		defer buffers.Put(buffer)
		n, err := length(r.Body, buffer[:])
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
		}
		_, _ = io.WriteString(w, strconv.Itoa(n))
	})
}

// length reads r to its end and returns how much there was.
func length(r io.Reader, buffer []byte) (int, error) {
	for total := 0; ; {
		n, err := r.Read(buffer)
		total += n
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}
