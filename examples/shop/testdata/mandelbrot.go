//go:build ignore

// Command mandelbrot draws mandelbrot.jpg.
package main

import (
	"image"
	"image/color"
	"image/jpeg"
	"log"
	"math"
	"math/cmplx"
	"os"
)

const width, height = 1280, 960

func main() {
	img := image.NewRGBA(image.Rect(0, 0, width, height))
	for y := range height {
		for x := range width {
			img.Set(x, y, shade(complex(float64(x-900)/400, float64(y-height/2)/400)))
		}
	}
	f, err := os.Create("testdata/mandelbrot.jpg")
	if err != nil {
		log.Fatal(err)
	}
	if err := jpeg.Encode(f, img, &jpeg.Options{Quality: 70}); err != nil {
		log.Fatal(err)
	}
	if err := f.Close(); err != nil {
		log.Fatal(err)
	}
}

// shade colours c by how fast it escapes, smoothly.
func shade(c complex128) color.Color {
	var z complex128
	for n := range 200 {
		if z = z*z + c; cmplx.Abs(z) > 1000 {
			t := math.Log2(float64(n) + 3 - math.Log2(math.Log(cmplx.Abs(z))))
			return color.RGBA{wave(t - 1.2), wave(t - 0.8), wave(t - 0.2), 255}
		}
	}
	return color.Black
}

func wave(t float64) uint8 { return uint8(127.5 - 127.5*math.Cos(1.6*t)) }
