package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// CheckAddr returns why the handler must not be served at addr, or nil. The runtime asks before it starts.
func (h *handler) CheckAddr(addr string) error {
	if h.options.Token != "" || local(addr) {
		time.AfterFunc(0, h.watch.begin) // the runtime holds its lock
		return nil
	}
	return errors.New("it can be reached from elsewhere: listen at 127.0.0.1, or set admin.Options.Token")
}

// admits reports whether a request may be answered at all, and answers it if not.
func (h *handler) admits(w http.ResponseWriter, r *http.Request) bool {
	switch {
	case r.URL.Path == "/healthz" || r.URL.Path == "/readyz": // by whatever address an orchestrator has
		return true
	case !h.called(r.Host):
		plain(w, http.StatusMisdirectedRequest, "this is not reached by that name; see admin.Options.Hosts")
	case r.URL.Path != "/" && r.Header.Get("Sec-Fetch-Site") == "cross-site":
		plain(w, http.StatusForbidden, "this is not for pages from elsewhere")
	case h.fromHere(r):
		return true
	case h.options.Token == "":
		plain(w, http.StatusForbidden, "from elsewhere this needs a token: set admin.Options.Token")
	case !h.authorized(r):
		unauthorized(w, r)
	default:
		return true
	}
	return false
}

// called reports whether a request may come by this name.
func (h *handler) called(host string) bool {
	return local(host) || slices.ContainsFunc(h.options.Hosts, func(name string) bool {
		return strings.EqualFold(name, withoutPort(host))
	})
}

// fromHere reports whether a request has come over a loopback address, or a Unix socket, and from no proxy that says so.
func (h *handler) fromHere(r *http.Request) bool {
	addr, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return ok && (addr.Network() == "unix" || local(addr.String())) && !passedOn(r.Header)
}

// passedOn reports whether a proxy has passed a request on, which may have come to that from anywhere.
func passedOn(h http.Header) bool {
	return slices.ContainsFunc([]string{"Forwarded", "X-Forwarded-For", "X-Real-Ip", "Via"}, func(name string) bool { return len(h[name]) > 0 })
}

// local reports whether an address, with a port or without, is of this machine alone.
func local(addr string) bool {
	host := withoutPort(addr)
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

func withoutPort(addr string) string {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		host = addr
	}
	return strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
}

// authorized reports whether a request has the token.
func (h *handler) authorized(r *http.Request) bool {
	scheme, given, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		_, given, ok = r.BasicAuth()
	}
	a, b := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(h.options.Token)) // of one length, whatever they are
	return ok && h.options.Token != "" && subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// unauthorized has a browser ask for the token, but not in the place of the page that has sent one.
func unauthorized(w http.ResponseWriter, r *http.Request) {
	if scheme, _, _ := strings.Cut(r.Header.Get("Authorization"), " "); !strings.EqualFold(scheme, "Bearer") {
		w.Header().Set("WWW-Authenticate", `Basic realm="watt"`)
	}
	plain(w, http.StatusUnauthorized, "this needs the token")
}

// action lets those do something that have the token.
func (h *handler) action(do http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case h.options.Token == "":
			plain(w, http.StatusForbidden, "there are no actions without admin.Options.Token")
		case !h.authorized(r):
			plain(w, http.StatusUnauthorized, "this needs the token") // the page asks for it, not the browser
		default:
			do(w, r)
		}
	})
}
