package resize

import (
	"bytes"
	"fmt"
	"image"
	_ "image/gif" // pictures may be GIF …
	"image/jpeg"
	_ "image/png" // … or PNG, too
	"io"

	"golang.org/x/image/draw"
)

const (
	maxBytes  = 20 << 20
	maxPixels = 50_000_000 // 400 MB once decoded, at most
	maxSide   = 1<<16 - 1  // the largest that a JPEG can have
)

// thumbnail is one of a picture's three.
type thumbnail struct {
	Place int    `json:"place"` // 64, 256 or 1024
	Width int    `json:"width"` // that, or the picture's own if it is narrower
	JPEG  []byte `json:"jpeg"`
}

// badPictureError is why a body is refused that is no picture, or too large a one.
type badPictureError struct{ reason error }

func (e *badPictureError) Error() string { return e.reason.Error() }

// resize reads a picture and makes its thumbnails.
func resize(body io.Reader) (*upload, error) {
	img, reason := decode(body)
	// The rest tells a body that is too large, or breaks off, from one that is no picture.
	if _, err := io.Copy(io.Discard, body); err != nil {
		return nil, err
	}
	if reason != nil {
		return nil, &badPictureError{reason}
	}
	up := &upload{Width: img.Bounds().Dx(), Height: img.Bounds().Dy(), Thumbnails: make([]thumbnail, 3)}
	for i, place := range []int{1024, 256, 64} { // each is made of the one before
		img = scale(img, min(place, img.Bounds().Dx()))
		var out bytes.Buffer
		if err := jpeg.Encode(&out, img, &jpeg.Options{Quality: 85}); err != nil {
			return nil, err
		}
		up.Thumbnails[2-i] = thumbnail{Place: place, Width: img.Bounds().Dx(), JPEG: out.Bytes()}
	}
	return up, nil
}

// decode reads a picture. A few bytes can claim to be a huge one, so its size is looked at first.
func decode(body io.Reader) (image.Image, error) {
	var head bytes.Buffer
	c, _, err := image.DecodeConfig(io.TeeReader(body, &head))
	if err != nil {
		return nil, fmt.Errorf("not a JPEG, PNG or GIF: %w", err)
	}
	if c.Width < 1 || c.Height < 1 {
		return nil, fmt.Errorf("the picture is empty: %d x %d pixels", c.Width, c.Height)
	}
	if max(c.Width, c.Height) > maxSide || c.Width*c.Height > maxPixels {
		return nil, fmt.Errorf("the picture is too large: %d x %d pixels", c.Width, c.Height)
	}
	img, _, err := image.Decode(io.MultiReader(&head, body))
	if err != nil {
		return nil, fmt.Errorf("the picture is broken: %w", err)
	}
	return img, nil
}

// scale returns img with another width, which is not above its own. Halving first makes every pixel
// count, and needs no memory but the result's.
func scale(img image.Image, width int) image.Image {
	for img.Bounds().Dx() >= 2*width {
		img = redraw(img, img.Bounds().Dx()/2)
	}
	return redraw(img, width)
}

// redraw draws img with the given width, on white where it is transparent.
func redraw(img image.Image, width int) image.Image {
	b := img.Bounds()
	dst := image.NewRGBA(image.Rect(0, 0, width, max(1, b.Dy()*width/b.Dx())))
	draw.Draw(dst, dst.Bounds(), image.White, image.Point{}, draw.Src)
	draw.ApproxBiLinear.Scale(dst, dst.Bounds(), img, b, draw.Over, nil)
	return dst
}
