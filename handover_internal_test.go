package watt

import (
	"net/http"
	"testing"
)

func TestARequestIsHandedOverOnceAndNotIfItNeedsItsConnection(t *testing.T) {
	d := &door{inside: inside{&app{rt: &Runtime{child: &child{handover: new(handover)}}}}}
	for name, c := range map[string]struct {
		peer   peer
		header http.Header
		want   bool
	}{
		"of a client's or a caller's": {peer{}, nil, true},
		"of a sibling's":              {peer{handed: true}, nil, false},
		"for another protocol":        {peer{}, http.Header{"Upgrade": {"test"}}, false},
		"gRPC":                        {peer{}, http.Header{"Content-Type": {"application/grpc"}}, false},
	} {
		if m := d.mover(&http.Request{Header: c.header}, &c.peer); (m != nil) != c.want {
			t.Errorf("%s: got %t, want %t", name, m != nil, c.want)
		}
	}
	if m := (&door{inside: inside{&app{rt: new(Runtime)}}}).mover(new(http.Request), new(peer)); m != nil {
		t.Error("in the parent, which has no siblings, it is handed over")
	}
}
