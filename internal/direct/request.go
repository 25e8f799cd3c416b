package direct

import (
	"context"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/org/watt/internal/roundtrip"
)

// maxPlain bounds the host, target and headers of a request that needs no wire, in bytes. For what is too long a server
// has an answer.
const maxPlain = 64 << 10

// Takes reports whether an Exchange can carry req. What it cannot needs a connection, or is so unusual, or
// wrong, that it is left to those who write it on a wire: upgrades, gRPC, CONNECT, trailers, unusual transfer encodings,
// headers about the connection or the body's length, and lengths that would have to be found out by reading.
func Takes(req *http.Request) bool {
	return req.URL != nil && req.URL.Opaque == "" && req.URL.Host != "" && plainPath(req.URL) && plainQuery(req.URL.RawQuery) &&
		!req.Close && req.Trailer == nil && plainCoding(req) && plainMethod(req) && roundtrip.PlainHost(roundtrip.Host(req)) && plainHeaders(req)
}

// plainMethod reports whether the method is well known, and goes with such a body.
func plainMethod(req *http.Request) bool {
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodDelete, http.MethodOptions:
		return !roundtrip.HasBody(req) && req.ContentLength == 0 || roundtrip.HasBody(req) && req.ContentLength > 0
	case http.MethodPost, http.MethodPut, http.MethodPatch:
		return roundtrip.HasBody(req) || req.ContentLength == 0
	}
	return false
}

// plainCoding reports whether the transfer encoding says nothing that the length does not. A proxy passes on what the
// server has found.
func plainCoding(req *http.Request) bool {
	coding := req.TransferEncoding
	return len(coding) == 0 || len(coding) == 1 && coding[0] == "chunked" && req.ContentLength < 0 && roundtrip.HasBody(req)
}

// plainPath reports whether there is a path, escaped or not, and not "*", of which a server takes care itself.
func plainPath(u *url.URL) bool { return begins(u.Path) && begins(u.RawPath) }

// begins reports whether a path, if there is one, begins as one.
func begins(path string) bool { return path == "" || path[0] == '/' }

// plainQuery reports whether a query has nothing that would end the target of a request, or its line.
func plainQuery(query string) bool {
	return !strings.ContainsFunc(query, func(r rune) bool { return r <= ' ' || r == 0x7f })
}

func plainHeaders(req *http.Request) bool {
	size := len(roundtrip.Host(req)) + len(req.URL.Path) + len(req.URL.RawQuery)
	for name, values := range req.Header {
		if !plainField(name, values) {
			return false
		}
		for _, v := range values {
			if size += len(name) + len(v); size > maxPlain || !httpguts.ValidHeaderFieldValue(v) {
				return false
			}
		}
	}
	return req.Header != nil && size <= maxPlain
}

// plainField reports whether a header is about neither the connection nor the body's length.
func plainField(name string, values []string) bool {
	switch name {
	case "Content-Type":
		return len(values) == 0 || !strings.HasPrefix(strings.ToLower(values[0]), "application/grpc")
	case "Expect":
		return len(values) == 1 && strings.EqualFold(values[0], "100-continue")
	case "Connection", "Upgrade", "Host", "Content-Length", "Transfer-Encoding", "Trailer", "Pragma":
		return false
	}
	return http.CanonicalHeaderKey(name) == name && httpguts.ValidHeaderFieldName(name)
}

// Request returns req, of which Takes must have approved, as the handler sees it, with a context of its own. Its
// RemoteAddr is yet to be set; that and the headers may be changed before RoundTrip.
func (x *Exchange) Request(ctx context.Context, req *http.Request) *http.Request {
	r := newRequest(ctx)
	r.URL, r.RequestURI = target(req.URL)
	r.Method, r.Host, r.Header = req.Method, roundtrip.Host(req), sent(req.Header)
	x.caller = req
	x.arrive(r, req)
	return r
}

// Given is Request for one that nobody else has, and that has a context of its own: it becomes the handler's. RequestURI must be
// what URL was made of.
func (x *Exchange) Given(r *http.Request) {
	for _, values := range r.Header {
		for i, v := range values {
			values[i] = textproto.TrimString(v)
		}
	}
	x.caller = nobody
	x.arrive(r, r)
}

// nobody is the caller's request where that is in another process.
var nobody = new(http.Request) //nolint:gochecknoglobals // it is never written to

// arrive makes r, which has the target and headers of req, what a server makes of them.
func (x *Exchange) arrive(r, req *http.Request) {
	x.toHead = req.Method == http.MethodHead
	r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/1.1", 1, 1
	if r.Method == "" {
		r.Method = http.MethodGet
	}
	if _, ok := req.Header["User-Agent"]; !ok {
		r.Header["User-Agent"] = []string{"Go-http-client/1.1"}
	} else if first(r.Header, "User-Agent") == "" {
		delete(r.Header, "User-Agent")
	} else {
		r.Header["User-Agent"] = r.Header["User-Agent"][:1]
	}
	x.requestBody(r, req)
}

// newRequest returns an empty request. What it copies is on its own stack, and not below all that Request calls.
//
//go:noinline
func newRequest(ctx context.Context) *http.Request { return new(http.Request).WithContext(ctx) }

// target returns the target that u makes, and what a server makes of that.
func target(u *url.URL) (*url.URL, string) {
	if u.RawPath == "" && u.RawQuery == "" && !u.ForceQuery && roundtrip.PlainPath(u.Path) {
		return &url.URL{Path: u.Path}, u.Path
	}
	uri := u.RequestURI()
	if parsed, err := url.ParseRequestURI(uri); err == nil {
		return parsed, uri
	}
	return &url.URL{Path: u.Path, RawPath: u.RawPath, RawQuery: u.RawQuery}, uri
}

// requestBody gives r the body of req, and what the headers say of it.
func (x *Exchange) requestBody(r, req *http.Request) {
	switch {
	case !roundtrip.HasBody(req):
		roundtrip.CloseBody(req)
		r.Body = http.NoBody
		if r.Method == http.MethodPost || r.Method == http.MethodPut || r.Method == http.MethodPatch {
			r.Header["Content-Length"] = []string{"0"}
		}
		return
	case req.ContentLength > 0:
		r.ContentLength = req.ContentLength
		r.Header["Content-Length"] = []string{strconv.FormatInt(req.ContentLength, 10)}
	default:
		r.ContentLength, r.TransferEncoding = -1, []string{"chunked"}
	}
	x.in.begin(x, req, r.ContentLength)
	r.Body = &x.in
}
