package openapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"go.uber.org/zap"

	"github.com/org/watt"
)

// Handler serves a merged document as JSON. Its methods are safe for concurrent use.
type Handler struct {
	env             *watt.Env
	info            *openapi3.Info
	sources         []*source
	maxAge, timeout time.Duration

	page atomic.Pointer[page] // the last one made, or nil
	turn chan struct{}        // holds a value while somebody makes one
}

// page is a merged document as it is served.
type page struct {
	body  []byte
	etag  string
	until time.Time // it is fresh
}

func (p *page) fresh() bool { return p != nil && time.Now().Before(p.until) }

// ServeHTTP answers GET and HEAD, for any path, with the merged document and an ETag.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, http.StatusText(http.StatusMethodNotAllowed), http.StatusMethodNotAllowed)
		return
	}
	p, err := h.current(r.Context())
	if err != nil {
		watt.WriteError(w, err)
		return
	}
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cache-Control", "no-cache") // may be kept, but is asked for again: that is cheap
	header.Set("Etag", p.etag)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(p.body))
}

// JSON returns the merged document, which must not be changed. If the one at hand is older than MaxAge, one caller
// asks all apps, at the same time, for as long as Timeout at most, whether ctx ends or not; others get the old one
// meanwhile. Without any they wait, and get an error if ctx ends.
func (h *Handler) JSON(ctx context.Context) ([]byte, error) {
	p, err := h.current(ctx)
	if err != nil {
		return nil, err
	}
	return p.body, nil
}

func (h *Handler) current(ctx context.Context) (*page, error) {
	p := h.page.Load()
	if p.fresh() {
		return p, nil
	}
	select {
	case h.turn <- struct{}{}:
	default:
		if p != nil {
			return p, nil
		}
		select {
		case h.turn <- struct{}{}:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	defer func() { <-h.turn }()
	if p = h.page.Load(); p.fresh() { // made since it was looked for
		return p, nil
	}
	return h.renew(ctx)
}

// renew makes a page. Whoever has the turn calls it, and goes on for the others if its own client goes away.
func (h *Handler) renew(ctx context.Context) (*page, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), h.timeout)
	defer cancel()
	parts := make([]*part, len(h.sources))
	errs := make([]error, len(h.sources))
	var all sync.WaitGroup
	for i, s := range h.sources {
		all.Go(func() { parts[i], errs[i] = s.load(ctx) })
	}
	all.Wait()
	body, err := json.Marshal(merge(h.info, h.sources, parts, errs))
	if err != nil {
		return nil, err
	}
	for i, s := range h.sources {
		h.report(s, errs[i])
	}
	sum := sha256.Sum256(body)
	p := &page{body: body, etag: `"` + hex.EncodeToString(sum[:16]) + `"`, until: time.Now().Add(h.maxAge)}
	h.page.Store(p)
	return p, nil
}

// report logs why an app is left out, once for each reason.
func (h *Handler) report(s *source, err error) {
	reason := ""
	if err != nil {
		reason = reasonOf(err).reason
	}
	if reason != "" && reason != s.reported {
		h.env.Logger.Warn("app is left out of the OpenAPI document",
			zap.String("callee", s.app), zap.String("reason", reason), zap.Error(err))
	}
	s.reported = reason
}
