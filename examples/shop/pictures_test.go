package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"image"
	"image/color"
	"image/color/palette"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
)

// picture is what clients are told of one.
type picture struct {
	ID            int64
	Width, Height int
	Thumbnails    []struct {
		Width int
		URL   string
	}
}

// upload uploads a picture that must be taken.
func (s *shop) upload(query string, body []byte) picture {
	s.t.Helper()
	got := s.post("/pictures"+query, bytes.NewReader(body))
	if got.status != http.StatusCreated {
		s.t.Fatalf("got %d %s, want 201", got.status, got.body)
	}
	saved := decode[picture](s.t, got)
	if at, want := got.header.Get("Location"), fmt.Sprintf("/pictures/%d", saved.ID); at != want {
		s.t.Errorf("got Location %q, want %q", at, want)
	}
	return saved
}

// jpegOf, pngOf and gifOf return a picture of that kind and size.
func jpegOf(t *testing.T, width, height int) []byte {
	t.Helper()
	return encoded(t, func(w io.Writer) error { return jpeg.Encode(w, draw(width, height), nil) })
}

func pngOf(t *testing.T, width, height int) []byte {
	t.Helper()
	return encoded(t, func(w io.Writer) error { return png.Encode(w, draw(width, height)) })
}

func gifOf(t *testing.T, width, height int) []byte {
	t.Helper()
	img := image.NewPaletted(image.Rect(0, 0, width, height), palette.Plan9)
	for i := range img.Pix {
		img.Pix[i] = uint8(i * i / 64)
	}
	return encoded(t, func(w io.Writer) error { return gif.Encode(w, img, nil) })
}

func draw(width, height int) image.Image {
	img := image.NewRGBA(image.Rect(0, 0, width, height))
	for i := range img.Pix {
		img.Pix[i] = uint8(i * i / 64)
		if i%4 == 3 {
			img.Pix[i] = 255
		}
	}
	return img
}

func encoded(t *testing.T, encode func(io.Writer) error) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := encode(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestThumbnails(t *testing.T) {
	t.Parallel()
	mandelbrot, err := os.ReadFile("testdata/mandelbrot.jpg")
	if err != nil {
		t.Fatal(err)
	}
	s := startShop(t, newTestShop(t))
	for _, test := range []struct {
		name          string
		body          []byte
		width, height int
		want          [3]image.Point
	}{
		{"testdata", mandelbrot, 1280, 960, [3]image.Point{{64, 48}, {256, 192}, {1024, 768}}},
		{"large JPEG", jpegOf(t, 3000, 300), 3000, 300, [3]image.Point{{64, 6}, {256, 25}, {1024, 102}}},
		{"large PNG", pngOf(t, 2047, 256), 2047, 256, [3]image.Point{{64, 8}, {256, 32}, {1024, 128}}},
		{"PNG", pngOf(t, 300, 150), 300, 150, [3]image.Point{{64, 32}, {256, 128}, {300, 150}}},
		{"GIF", gifOf(t, 200, 100), 200, 100, [3]image.Point{{64, 32}, {200, 100}, {200, 100}}},
		{"narrow GIF", gifOf(t, 40, 30), 40, 30, [3]image.Point{{40, 30}, {40, 30}, {40, 30}}},
		{"high JPEG", jpegOf(t, 63, 500), 63, 500, [3]image.Point{{63, 500}, {63, 500}, {63, 500}}},
		{"exact", pngOf(t, 256, 256), 256, 256, [3]image.Point{{64, 64}, {256, 256}, {256, 256}}},
		{"one pixel", pngOf(t, 1, 1), 1, 1, [3]image.Point{{1, 1}, {1, 1}, {1, 1}}},
		{"flat", pngOf(t, 5000, 1), 5000, 1, [3]image.Point{{64, 1}, {256, 1}, {1024, 1}}},
	} {
		saved := s.upload("", test.body)
		if saved.Width != test.width || saved.Height != test.height || len(saved.Thumbnails) != 3 {
			t.Errorf("%s: got %+v", test.name, saved)
			continue
		}
		if again := decode[picture](t, s.get(fmt.Sprintf("/pictures/%d", saved.ID))); fmt.Sprint(again) != fmt.Sprint(saved) {
			t.Errorf("%s: got %+v, and %+v before", test.name, again, saved)
		}
		for i, thumbnail := range saved.Thumbnails {
			urls := []string{thumbnail.URL, fmt.Sprintf("/pictures/%d/%d", saved.ID, thumbnail.Width)}
			for _, url := range urls {
				if got := s.thumbnail(url); got != test.want[i] || thumbnail.Width != test.want[i].X {
					t.Errorf("%s: %+v is %v, want %v", test.name, thumbnail, got, test.want[i])
				}
			}
		}
	}
}

// thumbnail gets a thumbnail and returns its size.
func (s *shop) thumbnail(url string) image.Point {
	s.t.Helper()
	got := s.get(url)
	if got.status != http.StatusOK || got.header.Get("Content-Type") != "image/jpeg" || got.header.Get("Cache-Control") == "" {
		s.t.Fatalf("%s: got %d %v", url, got.status, got.header)
	}
	img, err := jpeg.Decode(bytes.NewReader(got.body))
	if err != nil {
		s.t.Fatalf("%s: %v", url, err)
	}
	req := s.request(http.MethodGet, url, http.NoBody)
	req.Header.Set("If-None-Match", got.header.Get("Etag"))
	if again := s.do(req); again.status != http.StatusNotModified || len(again.body) > 0 {
		s.t.Errorf("%s: got %d for its ETag %s, want 304", url, again.status, got.header.Get("Etag"))
	}
	return img.Bounds().Size()
}

func TestPicturesOfAUser(t *testing.T) {
	t.Parallel()
	s := startShop(t, newTestShop(t))
	first := s.upload("?user=1", pngOf(t, 20, 20))
	s.upload("?user=2", pngOf(t, 20, 20))
	s.upload("", pngOf(t, 20, 20))
	last := s.upload("?user=1", pngOf(t, 30, 20))

	home := decode[struct{ Pictures []picture }](t, s.get("/home/1"))
	if len(home.Pictures) != 2 || fmt.Sprint(home.Pictures) != fmt.Sprint([]picture{last, first}) {
		t.Errorf("got %v, want %v and %v", home.Pictures, last, first)
	}
}

// TestAnUploadIsSavedOnce sends pictures with keys, as clients do that got no answer.
func TestAnUploadIsSavedOnce(t *testing.T) {
	t.Parallel()
	c := config{addr: "127.0.0.1:0", data: t.TempDir()}
	s := startShop(t, newShop(c))
	send := func(key string, body []byte) answer {
		t.Helper()
		req := s.request(http.MethodPost, "/pictures?user=1", bytes.NewReader(body))
		req.Header.Set("Idempotency-Key", key)
		return s.do(req)
	}
	tall, wide := pngOf(t, 20, 30), pngOf(t, 30, 20)
	first, other := send(`"a"`, tall), send(`"b"`, tall)
	if first.status != http.StatusCreated || other.status != http.StatusCreated || bytes.Equal(first.body, other.body) {
		t.Fatalf("got %d %s and %d %s, want two pictures", first.status, first.body, other.status, other.body)
	}
	for range 2 {
		again := send(`"a"`, tall)
		if again.status != http.StatusCreated || !bytes.Equal(again.body, first.body) || again.header.Get("Idempotent-Replayed") != "true" {
			t.Errorf("again: got %d %s with %v, want %s", again.status, again.body, again.header, first.body)
		}
		if at := first.header.Get("Location"); at == "" || again.header.Get("Location") != at {
			t.Errorf("again: got Location %q, want %q", again.header.Get("Location"), at)
		}
		if got := send(`"a"`, wide); got.status != http.StatusUnprocessableEntity || !bytes.Contains(got.body, []byte("another request")) {
			t.Errorf("another picture: got %d %s, want 422", got.status, got.body)
		}
		if got := send("a b", tall); got.status != http.StatusBadRequest || !bytes.Contains(got.body, []byte("Idempotency-Key")) {
			t.Errorf("a malformed key: got %d %s, want 400", got.status, got.body)
		}
		if err := s.stop(); err != nil {
			t.Fatal(err)
		}
		s = startShop(t, newShop(c)) // the keys are in the database
	}
	if home := decode[struct{ Pictures []picture }](t, s.get("/home/1")); len(home.Pictures) != 2 {
		t.Errorf("got %v, want two pictures", home.Pictures)
	}
	if got := send(`"large"`, jpegOf(t, 1000, 3000)); got.status != http.StatusCreated { // its thumbnails are more than a key takes along by itself
		t.Errorf("a large picture: got %d %s, want 201", got.status, got.body)
	}
}

// TestTwoUsersMayHaveTheSameKey has two users send the same picture with the same key, and somebody who is not signed
// in.
func TestTwoUsersMayHaveTheSameKey(t *testing.T) {
	t.Parallel()
	s := startShop(t, newTestShop(t))
	tall := pngOf(t, 20, 30)
	places := make(map[string]string)
	for _, token := range []string{"Bearer " + tokenOf(t, s.url, "1"), "Bearer " + tokenOf(t, s.url, "2"), ""} {
		for _, replayed := range []string{"", "true"} {
			req := s.request(http.MethodPost, "/pictures", bytes.NewReader(tall))
			req.Header.Set("Idempotency-Key", `"a"`)
			if token != "" {
				req.Header.Set("Authorization", token)
			}
			got := s.do(req)
			if got.status != http.StatusCreated || got.header.Get("Idempotent-Replayed") != replayed {
				t.Errorf("got %d %s with %v, want 201, replayed: %q", got.status, got.body, got.header, replayed)
			}
			places[got.header.Get("Location")] = token
		}
	}
	if len(places) != 3 {
		t.Errorf("got %v, want three pictures", places)
	}
	req := s.request(http.MethodPost, "/pictures", bytes.NewReader(tall))
	req.Header.Set("Authorization", "Bearer nonsense")
	if got := s.do(req); got.status != http.StatusUnauthorized {
		t.Errorf("got %d, want 401 for a token that is none", got.status)
	}
}

// TestPastTheGateway uploads to resize itself.
func TestPastTheGateway(t *testing.T) {
	t.Parallel()
	rt := newShop(config{addr: "127.0.0.1:0", pictures: "127.0.0.1:0", data: t.TempDir()})
	s := startShop(t, rt)
	for _, app := range rt.Status() {
		if app.Name == "resize" {
			s.url = "http://" + app.Addr
		}
	}
	if saved := s.upload("?user=1", pngOf(t, 30, 20)); saved.Width != 30 {
		t.Errorf("got %+v", saved)
	}
}

// TestTransparent uploads a picture of nothing, which is white on paper.
func TestTransparent(t *testing.T) {
	t.Parallel()
	s := startShop(t, newTestShop(t))
	nothing := encoded(t, func(w io.Writer) error { return png.Encode(w, image.NewNRGBA(image.Rect(0, 0, 300, 300))) })
	saved := s.upload("", nothing)
	img, err := jpeg.Decode(bytes.NewReader(s.get(saved.Thumbnails[0].URL).body))
	if err != nil {
		t.Fatal(err)
	}
	if y := color.GrayModel.Convert(img.At(32, 32)).(color.Gray).Y; y < 250 {
		t.Errorf("got a brightness of %d, want 255", y)
	}
}

// TestCurl uploads as the line that the shop prints does: curl calls every body a form.
func TestCurl(t *testing.T) {
	t.Parallel()
	s := startShop(t, newTestShop(t))
	req := s.request(http.MethodPost, "/pictures?user=1", bytes.NewReader(jpegOf(t, 100, 100)))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Expect", "100-continue")
	if got := s.do(req); got.status != http.StatusCreated {
		t.Errorf("got %d %s, want 201", got.status, got.body)
	}
}

// endless is a body whose length is not announced.
type endless struct{ io.Reader }

func TestRefusedUploads(t *testing.T) {
	t.Parallel()
	s := startShop(t, newTestShop(t))
	const most = 20 << 20
	good := pngOf(t, 50, 50)
	for _, test := range []struct {
		name, query string
		body        io.Reader
		status      int
		reason      string
	}{
		{"empty", "", http.NoBody, http.StatusUnprocessableEntity, "not a JPEG, PNG or GIF"},
		{"text", "", strings.NewReader("hello"), http.StatusUnprocessableEntity, "not a JPEG, PNG or GIF"},
		{"much text", "", strings.NewReader(strings.Repeat("hello", 1<<20)), http.StatusUnprocessableEntity, "not a JPEG, PNG or GIF"},
		{"half a JPEG", "", bytes.NewReader(jpegOf(t, 500, 500)[:5000]), http.StatusUnprocessableEntity, "broken"},
		{"half a PNG", "", bytes.NewReader(pngOf(t, 500, 500)[:5000]), http.StatusUnprocessableEntity, "broken"},
		{"half a GIF", "", bytes.NewReader(gifOf(t, 500, 500)[:5000]), http.StatusUnprocessableEntity, "broken"},
		{"huge PNG", "", bytes.NewReader(pngHeader(50_000, 50_000)), http.StatusUnprocessableEntity, "too large: 50000 x 50000"},
		{"high PNG", "", bytes.NewReader(pngHeader(1, 1<<20)), http.StatusUnprocessableEntity, "too large"},
		{"widest PNG", "", bytes.NewReader(pngHeader(1<<31-1, 1<<31-1)), http.StatusUnprocessableEntity, ""},
		{"empty PNG", "", bytes.NewReader(pngHeader(0, 100)), http.StatusUnprocessableEntity, ""},
		{"huge GIF", "", strings.NewReader("GIF89a\xff\xff\xff\xff\x00\x00\x00"), http.StatusUnprocessableEntity, "too large: 65535 x 65535"},
		{"empty GIF", "", strings.NewReader("GIF89a\x00\x00\x00\x00\x00\x00\x00;"), http.StatusUnprocessableEntity, ""},
		{"51 megapixels", "", bytes.NewReader(pngHeader(51_000, 1000)), http.StatusUnprocessableEntity, "too large"},
		{"20 MiB", "", bytes.NewReader(make([]byte, most)), http.StatusUnprocessableEntity, "not a JPEG, PNG or GIF"},
		{"above 20 MiB", "", bytes.NewReader(make([]byte, most+1)), http.StatusRequestEntityTooLarge, ""},
		{"far above 20 MiB", "", endless{bytes.NewReader(make([]byte, 2*most))}, http.StatusRequestEntityTooLarge, ""},
		{"more behind a picture", "", endless{bytes.NewReader(append(good, make([]byte, most)...))}, http.StatusRequestEntityTooLarge, ""},
		{"bad user", "?user=x", bytes.NewReader(good), http.StatusBadRequest, "user is not a number"},
		{"no such user", "?user=99", bytes.NewReader(good), http.StatusNotFound, "no such"},
		{"user nought", "?user=0", bytes.NewReader(good), http.StatusNotFound, ""},
	} {
		got := s.post("/pictures"+test.query, test.body)
		problem := decode[struct {
			Status int
			Detail string
		}](t, got)
		if got.status != test.status || problem.Status != test.status || !strings.Contains(problem.Detail, test.reason) {
			t.Errorf("%s: got %d %s, want %d for %q", test.name, got.status, got.body, test.status, test.reason)
		}
	}
}

// pngHeader is a PNG of a few bytes that claims to be a large one.
func pngHeader(width, height uint32) []byte {
	header := append([]byte("IHDR"), make([]byte, 13)...)
	binary.BigEndian.PutUint32(header[4:], width)
	binary.BigEndian.PutUint32(header[8:], height)
	copy(header[12:], []byte{8, 6}) // bits, RGBA
	b := append([]byte("\x89PNG\r\n\x1a\n\x00\x00\x00\x0d"), header...)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(header))
}
