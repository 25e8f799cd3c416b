package admin

import (
	"testing"
	"time"
)

func TestIdleIsWhatNeitherThisProcessNorThoseOfAppsUse(t *testing.T) {
	began := time.Now()
	for name, test := range map[string]struct {
		elapsed, used time.Duration
		apps          float64 // processors
		idle          float64
	}{
		"nothing was seen yet": {0, 0, 0, 2},
		"this process":         {10 * time.Second, 5 * time.Second, 0, 1.5},
		"others too":           {10 * time.Second, 5 * time.Second, 0.25, 1.25},
		"more than there are":  {10 * time.Second, 15 * time.Second, 1, 0},
	} {
		w := &watch{looks: []look{{at: began}, {at: began.Add(test.elapsed), cpu: test.used}}}
		r := &Report{Processors: 2, Apps: []App{{}, {Now: Figures{CPU: test.apps}}}}
		if got := w.idleLocked(r); got != test.idle {
			t.Errorf("%s: got %v, want %v", name, got, test.idle)
		}
	}
}
