package httpapi

import (
	"bytes"
	"html/template"
	"strings"

	"github.com/valyala/fasthttp"

	"snowlink/internal/link"
)

// previewPage does not show the link's title. The title is for those who manage the link, and a
// stranger who chose it could make the page lie. Browsers and robots may do nothing with the page
// but show it. The page says so itself, and Nginx says the same in its headers.
var previewPage = template.Must(template.New("preview").Parse(`<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<meta name="referrer" content="no-referrer">
<title>Where {{.ShortURL}} leads</title>
<h1>Where this link leads</h1>
<p><b>{{.ShortURL}}</b> leads to</p>
<p><a {{.Href}} rel="noreferrer nofollow">{{.Target}}</a></p>
{{with .Expires}}<p>It expires on {{.}}.</p>
{{end -}}
{{if .ForwardQuery}}<p>A query that is added to the short link is passed on.</p>
{{end -}}
</html>
`))

// preview answers GET /{code}+ with a page that says where the link leads. It does not count as a
// visit.
func (a *API) preview(ctx *fasthttp.RequestCtx) {
	code := strings.TrimSuffix(codeOf(ctx), "+")
	l, err := a.look(ctx, code)
	if err != nil {
		a.fail(ctx, err)
		return
	}
	page := struct {
		ShortURL, Target, Expires string
		Href                      template.HTMLAttr
		ForwardQuery              bool
	}{ShortURL: a.BaseURL + "/" + code, Target: l.Target, Href: href(l.Target)}
	if l.Options != nil {
		page.ForwardQuery = l.ForwardQuery
		if !l.Expires.IsZero() {
			page.Expires = l.Expires.UTC().Format("2 January 2006 at 15:04 UTC")
		}
	}
	var b bytes.Buffer
	if err := previewPage.Execute(&b, page); err != nil {
		a.fail(ctx, err)
		return
	}
	ctx.Response.Header.Set(fasthttp.HeaderCacheControl, notCached)
	ctx.SetContentType("text/html; charset=utf-8")
	ctx.SetBody(b.Bytes())
}

// href returns the attribute that leads to a target, byte for byte. The template itself would
// encode brackets and quotes, which breaks a signed URL. It is safe because every target is an http
// or https URL, whoever sent it.
func href(target string) template.HTMLAttr {
	return template.HTMLAttr(`href="` + template.HTMLEscapeString(target) + `"`)
}

// look finds the link as a visitor would, without taking a visit.
func (a *API) look(ctx *fasthttp.RequestCtx, code string) (link.Link, error) {
	if !link.CouldBeCode(code) {
		return link.Link{}, link.ErrNotFound
	}
	within := a.deadline(ctx)
	l, err := a.Store.Get(within, code)
	if err == nil && l.Limit() > 0 {
		l, err = a.uncounted(within, code) // only the store knows how many are left
	}
	if err == nil && l.Gone(ctx.Time()) {
		err = link.ErrGone
	}
	return l, err
}
