package httpapi

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"runtime"
	"strconv"
	"time"

	"github.com/boombuler/barcode/qr"
	"github.com/valyala/fasthttp"
)

const (
	// The smallest picture has at least one pixel for each module: the longest BASE_URL makes 81
	// modules, the usual margin included. For a picture above the largest size there is SVG, which
	// scales without work for the server.
	minQRSize     = 128
	maxQRSize     = 1024
	defaultQRSize = 256

	// quietZone is how many modules wide the margin around a QR code must be, by ISO/IEC 18004, for
	// readers to find it. A picture that is put on paper with a margin of its own may have less.
	quietZone = 4
	// maxQRMargin is the widest margin, with which the longest BASE_URL still has a pixel for each
	// module of the smallest picture.
	maxQRMargin = 16

	// cachedQR lets caches keep the picture for a day. It depends on the code alone, and nobody can
	// call back a printed one either.
	cachedQR = "public, max-age=86400"

	// drawWait is how long a picture may wait to be drawn.
	drawWait = time.Second

	// qrQuery is the query of the short URL in a QR code, by which a scan is told from other visits.
	qrQuery = "qr"
)

// errBusy reports that a QR code waited too long to be drawn.
var errBusy = errors.New("too many QR codes are being drawn")

// A drawingRoom bounds how many pictures are drawn at once. A large picture takes as much processor
// time as thousands of redirects, and needs no key. So those who ask for many wait, and visitors do
// not.
type drawingRoom chan struct{}

// newDrawingRoom makes room for pictures on half of the processors, and on one at least.
func newDrawingRoom() drawingRoom { return make(drawingRoom, max(1, runtime.GOMAXPROCS(0)/2)) }

// draw calls f when there is room, or returns errBusy after drawWait.
func (r drawingRoom) draw(f func() error) error {
	timeout := time.NewTimer(drawWait)
	defer timeout.Stop()
	select {
	case r <- struct{}{}:
		defer func() { <-r }()
		return f()
	case <-timeout.C:
		return errBusy
	}
}

// qr answers GET /{code}/qr with the short URL as a QR code. It does not count as a visit, and whoever
// scans it does.
func (a *API) qr(ctx *fasthttp.RequestCtx) {
	query, err := parsePictureQuery(ctx.QueryArgs())
	if err != nil {
		a.fail(ctx, err)
		return
	}
	code := ctx.UserValue("code").(string)
	if _, err := a.look(ctx, code); err != nil {
		a.fail(ctx, err)
		return
	}
	contentType, body := "image/svg+xml", []byte(nil)
	err = a.drawing.draw(func() error {
		picture, err := encodeQR(a.BaseURL+"/"+code+"?"+qrQuery, query.margin)
		switch {
		case err != nil:
		case query.png:
			contentType, body = "image/png", picture.png(query)
		default:
			body = picture.svg(query)
		}
		return err
	})
	if err != nil {
		a.fail(ctx, err)
		return
	}
	ctx.Response.Header.Set(fasthttp.HeaderCacheControl, cachedQR)
	ctx.SetContentType(contentType)
	ctx.SetBody(body)
}

type pictureQuery struct {
	png               bool
	size              int // pixels on a side
	margin            int // modules
	color, background color.RGBA
}

// parsePictureQuery reads the parameters of a QR code. Its error is a *fieldError.
func parsePictureQuery(args *fasthttp.Args) (pictureQuery, error) {
	q := pictureQuery{size: defaultQRSize, margin: quietZone, color: color.RGBA{A: 255}, background: color.RGBA{255, 255, 255, 255}}
	for name, value := range args.All() {
		switch value := string(value); string(name) {
		case "format":
			if value != "svg" && value != "png" {
				return q, fieldErrorf(`The parameter "format" must be svg or png.`)
			}
			q.png = value == "png"
		case "size":
			n, err := strconv.Atoi(value)
			if err != nil || n < minQRSize || n > maxQRSize {
				return q, fieldErrorf(`The parameter "size" must be from %d to %d pixels.`, minQRSize, maxQRSize)
			}
			q.size = n
		case "margin":
			n, err := strconv.Atoi(value)
			if err != nil || n < 0 || n > maxQRMargin {
				return q, fieldErrorf(`The parameter "margin" must be from 0 to %d modules.`, maxQRMargin)
			}
			q.margin = n
		case "color", "background":
			c, ok := parseColor(value)
			if !ok {
				return q, fieldErrorf("The parameter %q must be six hexadecimal digits, such as 1b4965: two each for red, green and blue.", name)
			}
			if string(name) == "color" {
				q.color = c
			} else {
				q.background = c
			}
		default:
			return q, unknownParameter(name)
		}
	}
	return q, nil
}

// parseColor reads six hexadecimal digits.
func parseColor(value string) (color.RGBA, bool) {
	b, err := hex.DecodeString(value)
	if err != nil || len(b) != 3 {
		return color.RGBA{}, false
	}
	return color.RGBA{b[0], b[1], b[2], 255}, true
}

// cssColor is a color as SVG has it.
func cssColor(c color.RGBA) string { return fmt.Sprintf("#%02x%02x%02x", c.R, c.G, c.B) }

// A qrPicture says of each module of a QR code whether it is dark, row by row, the margin included.
type qrPicture [][]bool

// encodeQR makes the QR code of text at level M, the usual one, with a margin in modules. A seventh of
// the code may be unreadable, as under a logo or a crease, and the picture is no larger than needed.
func encodeQR(text string, margin int) (qrPicture, error) {
	code, err := qr.Encode(text, qr.M, qr.Auto)
	if err != nil {
		return nil, fmt.Errorf("QR code of %d bytes: %w", len(text), err)
	}
	n := code.Bounds().Dx()
	p := make(qrPicture, n+2*margin)
	for y := range p {
		p[y] = make([]bool, len(p))
	}
	for y := range n {
		for x := range n {
			p[y+margin][x+margin] = code.At(x, y) == color.Black
		}
	}
	return p, nil
}

// svg draws the dark modules as one path, a rectangle for each run of them.
func (p qrPicture) svg(q pictureQuery) []byte {
	n := len(p)
	b := fmt.Appendf(nil, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" shape-rendering="crispEdges">`+
		`<rect width="%d" height="%d" fill="%s"/><path fill="%s" d="`, q.size, q.size, n, n, n, n, cssColor(q.background), cssColor(q.color))
	for y, row := range p {
		for x := 0; x < n; x++ {
			start := x
			for x < n && row[x] {
				x++
			}
			if run := x - start; run > 0 {
				b = fmt.Appendf(b, "M%d %dh%dv1h-%dz", start, y, run, run)
			}
		}
	}
	return append(b, `"/></svg>`...)
}

// png draws every module as many whole pixels wide as fit, so that no edge is blurred, and leaves
// the rest as background.
func (p qrPicture) png(q pictureQuery) []byte {
	size := q.size
	img := image.NewPaletted(image.Rect(0, 0, size, size), color.Palette{q.background, q.color})
	scale := size / len(p)
	margin := (size - scale*len(p)) / 2
	line := make([]byte, size)
	for y, row := range p {
		for x, dark := range row {
			pixels := line[margin+x*scale:][:scale]
			for i := range pixels {
				pixels[i] = 0
				if dark {
					pixels[i] = 1
				}
			}
		}
		for i := range scale {
			copy(img.Pix[(margin+y*scale+i)*img.Stride:], line)
		}
	}
	var b bytes.Buffer
	encoder := png.Encoder{CompressionLevel: png.BestSpeed}
	if err := encoder.Encode(&b, img); err != nil {
		panic(err) // a buffer takes everything, and the size is in bounds
	}
	return b.Bytes()
}
