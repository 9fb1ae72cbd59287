package httpapi_test

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"strconv"
	"strings"
	"testing"

	"github.com/makiuchi-d/gozxing"
	"github.com/makiuchi-d/gozxing/qrcode"
)

// A QR code is read by a library that shares nothing with the one that made it.
func TestQRCodeSaysTheShortURL(t *testing.T) {
	b := newBackend(t)
	codes := []string{
		wantCreated(t, b.create(`{"url":"https://example.com/"}`)).Code,
		wantCreated(t, b.create(with(`"code":"own"`))).Code,
		wantCreated(t, b.create(with(`"code":"`+strings.Repeat("_-aZ", 16)+`"`))).Code,
	}
	for _, code := range codes {
		for _, tt := range []struct {
			query string
			size  int
			svg   bool
		}{
			{"", 256, true},
			{"?size=1024", 1024, true},
			{"?format=svg&size=128", 128, true},
			{"?format=png", 256, false},
			{"?format=png&size=128", 128, false},
			{"?size=1024&format=png", 1024, false},
			{"?format=png&size=333", 333, false},
			{"?margin=0", 256, true},
			{"?margin=16&size=128&format=png", 128, false},
			{"?margin=0&format=png&color=1B4965&background=ffeedd", 256, false},
		} {
			t.Run(fmt.Sprintf("%.10s%s", code, tt.query), func(t *testing.T) {
				a := b.do("GET", "/"+code+"/qr"+tt.query, "")
				if a.status != 200 {
					t.Fatalf("answer %d %s", a.status, a.body)
				}
				draw, kind := drawPNG, "image/png"
				if tt.svg {
					draw, kind = drawSVG, "image/svg+xml"
				}
				if got := string(a.header.ContentType()); got != kind {
					t.Errorf("Content-Type = %q, want %q", got, kind)
				}
				img, size := draw(t, a.body)
				if size != tt.size {
					t.Errorf("the picture is %d pixels wide, want %d", size, tt.size)
				}
				if got := readQR(t, img); got != baseURL+"/"+code+"?qr" {
					t.Errorf("the QR code says %q, want %q", got, baseURL+"/"+code+"?qr")
				}
			})
		}
	}
}

func TestQRCodeHasMarginAndColors(t *testing.T) {
	b := newBackend(t)
	path := "/" + wantCreated(t, b.create(`{"url":"https://example.com/"}`)).Code + "/qr"
	for query, want := range map[string]string{
		"?color=1B4965":                   `fill="#ffffff"/><path fill="#1b4965" `,
		"?background=ffeedd&color=000080": `fill="#ffeedd"/><path fill="#000080" `,
	} {
		if a := b.do("GET", path+query, ""); !strings.Contains(a.body, want) {
			t.Errorf("%s: %.300s does not say %s", query, a.body, want)
		}
	}
	modules := func(query string) (n int) {
		_, rest, _ := strings.Cut(b.do("GET", path+query, "").body, `viewBox="`)
		fmt.Sscanf(rest, "0 0 %d", &n)
		return n
	}
	if bare, usual, wide := modules("?margin=0"), modules(""), modules("?margin=16"); usual != bare+8 || wide != bare+32 {
		t.Errorf("%d modules without a margin, %d with the usual one, %d with one of 16", bare, usual, wide)
	}
	img, _ := drawPNG(t, b.do("GET", path+"?format=png&color=1b4965&background=ffeedd", "").body)
	found := make(map[color.Color]bool)
	for y := range img.Bounds().Dy() {
		for x := range img.Bounds().Dx() {
			found[img.At(x, y)] = true
		}
	}
	if ink, paper := (color.RGBA{0x1b, 0x49, 0x65, 255}), (color.RGBA{0xff, 0xee, 0xdd, 255}); len(found) != 2 || !found[ink] || !found[paper] {
		t.Errorf("the picture has the colors %v, want %v on %v", found, ink, paper)
	}
}

func TestQRCodeRefuses(t *testing.T) {
	b := newBackend(t)
	code := wantCreated(t, b.create(`{"url":"https://example.com/"}`)).Code
	for query, want := range map[string]string{
		"size=127":                 "from 128 to 1024 pixels",
		"size=1025":                "from 128 to 1024 pixels",
		"size=":                    "from 128 to 1024 pixels",
		"size=1e3":                 "from 128 to 1024 pixels",
		"format=gif":               "svg or png",
		"format=":                  "svg or png",
		"colour=red":               `"colour" is not known`,
		"margin=-1":                "from 0 to 16 modules",
		"margin=17":                "from 0 to 16 modules",
		"color=red":                "six hexadecimal digits",
		"color=":                   "six hexadecimal digits",
		"background=%22/><script>": `"background" must be six`,
		"background=%23ffffff":     "six hexadecimal digits",
	} {
		if detail := wantProblem(t, b.do("GET", "/"+code+"/qr?"+query, ""), 400, "invalid_field"); !strings.Contains(detail, want) {
			t.Errorf("%s: detail %q does not say %q", query, detail, want)
		}
	}
}

// readQR reads the one QR code of an image.
func readQR(t *testing.T, img image.Image) string {
	t.Helper()
	bitmap, err := gozxing.NewBinaryBitmapFromImage(img)
	if err != nil {
		t.Fatal(err)
	}
	// The image is read as a drawing with nothing else on it. To find a code in a photograph the
	// library guesses, and it misses one of some hundred codes, whoever drew them.
	hints := map[gozxing.DecodeHintType]any{gozxing.DecodeHintType_PURE_BARCODE: true}
	result, err := qrcode.NewQRCodeReader().Decode(bitmap, hints)
	if err != nil {
		t.Fatalf("no QR code is found: %v", err)
	}
	return result.GetText()
}

func drawPNG(t *testing.T, body string) (image.Image, int) {
	t.Helper()
	img, err := png.Decode(strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if img.Bounds().Dx() != img.Bounds().Dy() {
		t.Errorf("bounds %v", img.Bounds())
	}
	return img, img.Bounds().Dx()
}

// drawSVG draws the rectangles of the path, each unit as some pixels. It returns the width that the
// picture asks for.
func drawSVG(t *testing.T, body string) (image.Image, int) {
	t.Helper()
	var svg struct {
		XMLName xml.Name `xml:"http://www.w3.org/2000/svg svg"`
		Width   int      `xml:"width,attr"`
		Height  int      `xml:"height,attr"`
		ViewBox string   `xml:"viewBox,attr"`
		Path    struct {
			D string `xml:"d,attr"`
		} `xml:"path"`
	}
	if err := xml.NewDecoder(bytes.NewReader([]byte(body))).Decode(&svg); err != nil {
		t.Fatal(err)
	}
	var n, m int
	if _, err := fmt.Sscanf(svg.ViewBox, "0 0 %d %d", &n, &m); err != nil || n != m || svg.Width != svg.Height {
		t.Fatalf("viewBox %q: %v; %d × %d", svg.ViewBox, err, svg.Width, svg.Height)
	}
	const scale = 4
	img := image.NewGray(image.Rect(0, 0, n*scale, n*scale))
	for i := range img.Pix {
		img.Pix[i] = 255
	}
	for command := range strings.SplitSeq(strings.TrimSuffix(svg.Path.D, "z"), "z") {
		var x, y, run int
		var back string
		if _, err := fmt.Sscanf(command, "M%d %dh%dv1h%s", &x, &y, &run, &back); err != nil || back != strconv.Itoa(-run) {
			t.Fatalf("path has %q: %v", command, err)
		}
		for py := y * scale; py < (y+1)*scale; py++ {
			for px := x * scale; px < (x+run)*scale; px++ {
				img.Set(px, py, color.Black)
			}
		}
	}
	return img, svg.Width
}
