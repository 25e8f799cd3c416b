package pyramid

import (
	"context"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"slices"
	"strings"

	"github.com/org/watt"
)

// Headers that tell where a request comes from.
const (
	forwardedFor   = "X-Forwarded-For"
	forwardedHost  = "X-Forwarded-Host"
	forwardedProto = "X-Forwarded-Proto"
)

// declaredKey is the context key of requests from a proxy that was declared.
type declaredKey struct{}

// TrustProxies returns a middleware that has [Proxy] believe the X-Forwarded-For, -Host and -Proto of
// requests whose peer's address is in one of the prefixes: the load balancers in front of the entrypoint.
// They must set all three themselves, or remove them. Without prefixes it does nothing; it panics if one
// is not valid.
func TrustProxies(prefixes ...netip.Prefix) func(http.Handler) http.Handler {
	known := make([]netip.Prefix, 0, len(prefixes))
	for _, p := range prefixes {
		if !p.IsValid() {
			panic("pyramid: TrustProxies: a prefix is not valid")
		}
		if p.Addr().Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		known = append(known, p)
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			peer, _ := address(r.RemoteAddr)
			if !slices.ContainsFunc(known, func(p netip.Prefix) bool { return p.Contains(peer) }) {
				next.ServeHTTP(w, r)
				return
			}
			own := r.WithContext(context.WithValue(r.Context(), declaredKey{}, true))
			defer func() { // those in front look at r: for the route, and for files that are to be removed
				r.Pattern, r.MultipartForm = own.Pattern, own.MultipartForm
			}()
			next.ServeHTTP(w, own)
		})
	}
}

// setForwarded says where a request comes from.
func setForwarded(r *httputil.ProxyRequest) {
	h := r.Out.Header
	dropForwarded(h)
	ctx := r.In.Context()
	inside := watt.Caller(ctx) != ""
	var chain []string
	var host, proto string
	if inside || ctx.Value(declaredKey{}) != nil {
		chain, host, proto = believed(r.In.Header)
	}
	if !inside { // an app's own host is not how the system was addressed
		host, proto = seen(r.In, host, proto)
	}
	if peer, ok := address(r.In.RemoteAddr); ok {
		chain = append(chain, peer.String())
	}
	setValue(h, forwardedFor, strings.Join(chain, ", "))
	setValue(h, forwardedHost, host)
	setValue(h, forwardedProto, proto)
}

func setValue(h http.Header, name, value string) {
	if value != "" {
		h[name] = []string{value}
	}
}

// seen fills in what the connection shows.
func seen(r *http.Request, host, proto string) (string, string) {
	if host == "" {
		host = r.Host
	}
	if proto == "" {
		proto = "http"
		if r.TLS != nil {
			proto = "https"
		}
	}
	return host, proto
}

// dropForwarded removes all that may say where a request comes from.
func dropForwarded(h http.Header) {
	for name := range h {
		if forwarded(hyphened(name)) {
			delete(h, name)
		}
	}
}

// forwarded reports whether a header says where a request comes from.
func forwarded(name string) bool {
	return name == "Forwarded" || name == "X-Real-Ip" || strings.HasPrefix(name, "X-Forwarded-")
}

// hyphened returns the name of a header as those read it who take "_" for "-", as many servers do.
func hyphened(name string) string {
	if !strings.Contains(name, "_") {
		return name
	}
	return http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-"))
}

// believed returns what an earlier hop says, as far as it is well formed. Of several values the last
// one counts, which the nearest hop has added.
func believed(h http.Header) (chain []string, host, proto string) {
	for _, hop := range slices.Backward(members(h, forwardedFor)) {
		addr, ok := address(hop)
		if !ok {
			break // and whoever wrote that may have written the rest
		}
		chain = append(chain, addr.String())
	}
	slices.Reverse(chain)
	if hosts := members(h, forwardedHost); len(hosts) > 0 && validHost(hosts[len(hosts)-1]) {
		host = hosts[len(hosts)-1]
	}
	if protos := members(h, forwardedProto); len(protos) > 0 {
		proto = scheme(protos[len(protos)-1])
	}
	return chain, host, proto
}

// scheme returns what an X-Forwarded-Proto says, or "" if that is nothing. Some proxies have names of their own for
// WebSockets, which apps do not expect.
func scheme(proto string) string {
	switch strings.ToLower(proto) {
	case "http", "ws":
		return "http"
	case "https", "wss":
		return "https"
	}
	return ""
}

// members returns the members of a header that is a list.
func members(h http.Header, name string) []string {
	if len(h[name]) == 0 {
		return nil
	}
	list := strings.Split(strings.Join(h[name], ","), ",")
	for i, v := range list {
		list[i] = strings.TrimSpace(v)
	}
	return list
}

// address parses an IP address, with or without a port, into its plain form: without a zone, which means
// something on one machine only, and IPv4 as such.
func address(s string) (netip.Addr, bool) {
	if withPort, err := netip.ParseAddrPort(s); err == nil {
		return withPort.Addr().Unmap().WithZone(""), true
	}
	if bare, ok := strings.CutPrefix(s, "["); ok && strings.HasSuffix(bare, "]") {
		s = strings.TrimSuffix(bare, "]")
	}
	addr, err := netip.ParseAddr(s)
	return addr.Unmap().WithZone(""), err == nil
}

// maxHost is the longest host name with a port, in bytes.
const maxHost = 253 + len(":65535")

func validHost(s string) bool {
	return s != "" && len(s) <= maxHost &&
		strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._:[]") == ""
}
