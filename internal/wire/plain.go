package wire

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/org/watt/internal/roundtrip"
)

// Most requests have no body, and most answers a short head and a known length. Those are written and
// parsed here, in a single pass. Whatever is unusual about one, net/http does it.

// writePlain writes req if it is as plain as that, and reports whether it did.
func (x *exchange) writePlain(req *http.Request) bool {
	host, uri, ok := plainTarget(req)
	if !ok || x.trace != nil || !bodiless(req) {
		return false
	}
	w := x.c.bw
	for _, s := range []string{plainMethod(req.Method), " ", uri, " HTTP/1.1\r\nHost: ", host, "\r\n"} {
		_, _ = w.WriteString(s) // Flush tells
	}
	if agent, ok := req.Header["User-Agent"]; !ok {
		_, _ = w.WriteString("User-Agent: Go-http-client/1.1\r\n")
	} else if len(agent) > 0 && agent[0] != "" {
		writeField(w, "User-Agent", agent[0])
	}
	for name, values := range req.Header {
		if name == "User-Agent" {
			continue
		}
		for _, v := range values {
			writeField(w, name, v)
		}
	}
	_, _ = w.WriteString("\r\n")
	return true
}

// bodiless reports whether req has no body, and says nothing about one nor about the connection.
func bodiless(req *http.Request) bool {
	for _, name := range []string{"Host", "Content-Length", "Transfer-Encoding", "Trailer"} {
		if req.Header[name] != nil {
			return false
		}
	}
	return !roundtrip.HasBody(req) && req.ContentLength == 0 &&
		!req.Close && req.Trailer == nil && len(req.TransferEncoding) == 0
}

// writeField writes a field that check has found valid.
func writeField(w *bufio.Writer, name, value string) {
	for _, s := range []string{name, ": ", textproto.TrimString(value), "\r\n"} {
		_, _ = w.WriteString(s)
	}
}

// plainMethod returns the method if a request without a body says nothing about its length, or "".
func plainMethod(method string) string {
	switch method {
	case "":
		return http.MethodGet
	case http.MethodGet, http.MethodHead, http.MethodDelete, http.MethodOptions:
		return method
	}
	return ""
}

// plainTarget returns the host and the target of req, unless one of them has to be escaped or checked.
func plainTarget(req *http.Request) (host, uri string, ok bool) {
	host = roundtrip.Host(req)
	if req.URL.Opaque != "" || plainMethod(req.Method) == "" || !roundtrip.PlainHost(host) {
		return "", "", false
	}
	uri = req.URL.RequestURI()
	return host, uri, !strings.ContainsFunc(uri, func(r rune) bool { return r <= ' ' || r >= 0x7f })
}

// parsePlain parses the head of an answer if it is whole in the buffer, final, and as plain as that.
// Otherwise it returns nil and has read nothing.
func (x *exchange) parsePlain() *http.Response {
	buffered, _ := x.c.br.Peek(x.c.br.Buffered())
	end := bytes.Index(buffered, []byte("\r\n\r\n"))
	if end < 0 || x.req.Method == http.MethodHead {
		return nil
	}
	line, fields, _ := strings.Cut(string(buffered[:end+2]), "\r\n")
	code := plainStatus(line)
	if code == 0 {
		return nil
	}
	header, length := plainHeader(fields)
	if length < 0 {
		return nil
	}
	_, _ = x.c.br.Discard(end + 4)
	resp := &http.Response{
		Status: line[9:], StatusCode: code, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: header, ContentLength: length, Request: x.req, Body: http.NoBody,
	}
	if length > 0 {
		x.sized = sizedBody{x.c.br, length}
		resp.Body = &x.sized
	}
	return resp
}

// plainStatus returns the status of an answer that has a body of its own length, or 0.
func plainStatus(line string) int {
	rest, ok := strings.CutPrefix(line, "HTTP/1.1 ")
	if !ok || len(rest) < 5 || rest[3] != ' ' || !httpguts.ValidHeaderFieldValue(rest) { // a bare line feed ends lines too
		return 0
	}
	code, err := strconv.Atoi(rest[:3])
	if err != nil || code < 200 || code > 599 || code == http.StatusNoContent || code == http.StatusNotModified {
		return 0
	}
	return code
}

// plainHeader parses complete lines. It returns -1 for the length if there is none, or anything that
// needs more than to be stored.
func plainHeader(lines string) (http.Header, int64) {
	n := strings.Count(lines, "\r\n")
	header, values, length := make(http.Header, n), make([]string, n), int64(-1)
	for i := 0; lines != ""; i++ {
		var line string
		line, lines, _ = strings.Cut(lines, "\r\n")
		name, value, ok := strings.Cut(line, ":")
		value = strings.Trim(value, " \t")
		if !ok || !plainField(name, value) {
			return nil, -1
		}
		if name == "Content-Length" {
			size, err := strconv.ParseUint(value, 10, 62)
			if err != nil || length >= 0 {
				return nil, -1
			}
			length = int64(size)
		}
		if header[name] != nil {
			header[name] = append(header[name], value)
			continue
		}
		values[i] = value
		header[name] = values[i : i+1 : i+1]
	}
	return header, length
}

func plainField(name, value string) bool {
	switch name {
	case "Transfer-Encoding", "Connection", "Trailer", "Upgrade", "Pragma":
		return false
	}
	return httpguts.ValidHeaderFieldName(name) && http.CanonicalHeaderKey(name) == name && httpguts.ValidHeaderFieldValue(value)
}

// sizedBody is what remains of a body whose length is known.
type sizedBody struct {
	br   *bufio.Reader
	left int64
}

func (b *sizedBody) Read(p []byte) (int, error) {
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.br.Read(p)
	b.left -= int64(n)
	switch {
	case b.left == 0:
		err = io.EOF
	case err == io.EOF:
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// Close has nothing to do: the exchange ends with its connection.
func (b *sizedBody) Close() error { return nil }
