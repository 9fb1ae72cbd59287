package httpapi_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"iter"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/valyala/fasthttp"
)

// The document must say what the server does, and nothing else. Every answer in the tests of this
// package is checked against it: an undocumented path, method or status fails the test, and so does
// an undocumented header or field. Every request that succeeds must be allowed by the document.
// Requests that fail may be wrong on purpose. When all tests ran, each operation must have given
// each status that the document has for it.

func TestMain(m *testing.M) {
	status := m.Run()
	selected := func(name string) bool { return flag.Lookup("test."+name).Value.String() != "" }
	if status == 0 && !testing.Short() && !selected("run") && !selected("skip") && !selected("fuzz") && !selected("list") {
		if missing := unseen(); len(missing) > 0 {
			fmt.Fprintf(os.Stderr, "openapi.yaml has what no test saw:\n\t%s\n", strings.Join(missing, "\n\t"))
			status = 1
		}
	}
	os.Exit(status)
}

func TestOpenAPIIsServed(t *testing.T) {
	b := newBackend(t)
	want, err := os.ReadFile("openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if a := b.do("GET", "/openapi.yaml", ""); a.status != 200 || a.body != string(want) {
		t.Errorf("answer %d, %d bytes, want the document of %d", a.status, len(a.body), len(want))
	}
}

// Every operation answers what the document says about its key, and about a store that is full or
// away.
func TestOperationsWithoutWhatTheyNeed(t *testing.T) {
	b := newBackend(t)
	code := wantCreated(t, b.create(`{"url":"https://example.com/"}`)).Code
	c, err := theContract()
	if err != nil {
		t.Fatal(err)
	}
	type operation struct {
		*openapi3.Operation
		method, path string
	}
	var all []operation
	for path, item := range c.doc.Paths.Map() {
		for method, o := range item.Operations() {
			if o.OperationID == "watchClicks" { // whose answer takes a quarter of an hour
				method = fasthttp.MethodHead
			}
			all = append(all, operation{o, method, path})
		}
	}
	imports := 0
	send := func(o operation, headers ...string) answer {
		body, path := anyBody, strings.NewReplacer("{code}", code, "{id}", strings.Repeat("a", 43)).Replace(o.path)
		switch o.OperationID {
		case "importLinks":
			imports++
			body = with(fmt.Sprintf(`"code":"imported-%d"`, imports))
		case "signIn":
			body = `{"key":"` + key + `"}`
		case "describeCode":
			path = "/codes/own-code"
		}
		return b.do(o.method, path, body, headers...)
	}
	wantProblem := func(t *testing.T, o operation, a answer, status int, code string) string {
		t.Helper()
		if o.method == fasthttp.MethodHead { // has no body to tell
			if a.status != status {
				t.Errorf("answer %d, want %d", a.status, status)
			}
			return ""
		}
		return wantProblem(t, a, status, code)
	}

	for _, o := range all {
		if o.Security != nil { // it says that there is none
			continue
		}
		t.Run(o.OperationID, func(t *testing.T) {
			wantProblem(t, o, send(o), 401, "unauthorized")

			scope := o.Tags[0]
			others := slices.DeleteFunc([]string{"create", "manage", "read", "admin"}, func(s string) bool { return s == scope })
			b.keys.SetNamed(parseKeys(t,
				keyLine(o.OperationID, "slow", "scopes=create,manage,read,admin rate=1/h"),
				keyLine("other", "other", "scopes="+strings.Join(others, ",")),
			))
			if scope != "key" { // which takes none
				detail := wantProblem(t, o, send(o, "API-Key: other"), 403, "forbidden")
				if o.method != fasthttp.MethodHead && !strings.HasSuffix(detail, "the scope "+scope+".") {
					t.Errorf("detail %q, want the scope %s", detail, scope)
				}
			}
			for a := send(o, "API-Key: slow"); ; a = send(o, "API-Key: slow") {
				if a.status == 429 {
					wantProblem(t, o, a, 429, "rate_limited")
					break
				}
				if a.status >= 500 {
					t.Fatalf("answer %d %s", a.status, a.body)
				}
			}
		})
	}

	code = wantCreated(t, b.create(`{"url":"https://example.com/"}`)).Code
	client := b.fill()
	for _, o := range all {
		if o.Responses.Value("507") != nil {
			t.Run(o.OperationID+" when full", func(t *testing.T) {
				wantProblem(t, o, send(o, "API-Key: "+key), 507, "storage_full")
			})
		}
	}
	client.ConfigSet(t.Context(), "maxmemory", "0")
	_, cookie := b.signIn(key)
	b.redis.Kill()
	for _, o := range all {
		if o.Responses.Value("503") != nil && o.OperationID != "healthz" { // which asks whoever knows
			t.Run(o.OperationID+" without Redis", func(t *testing.T) {
				if o.Tags[0] != "key" && o.Tags[0] != "dashboard" { // which can do without if a header has the key
					wantProblem(t, o, send(o, "API-Key: "+key), 503, "unavailable")
				}
				wantProblem(t, o, send(o, cookie, ourOrigin), 503, "unavailable")
			})
		}
	}
}

// contract is openapi.yaml, ready to hold requests and answers against.
type contract struct {
	doc       *openapi3.T
	templates []template

	mu       sync.Mutex
	compiler *jsonschema.Compiler
	schemas  map[string]*jsonschema.Schema // by JSON pointer
	seen     map[string]bool               // operation and status
}

type template struct {
	path    string
	pattern *regexp.Regexp
}

var theContract = sync.OnceValues(func() (*contract, error) {
	doc, err := openapi3.NewLoader().LoadFromFile("openapi.yaml")
	if err != nil {
		return nil, err
	}
	if err := doc.Validate(context.Background()); err != nil { // the examples too
		return nil, err
	}
	c := &contract{doc: doc, schemas: map[string]*jsonschema.Schema{}, seen: map[string]bool{}}
	for path := range doc.Paths.Map() {
		pattern := strings.ReplaceAll(regexp.QuoteMeta(path), `\{file\}`, `(?P<file>.*)`)
		pattern = inPath.ReplaceAllString(pattern, `(?P<$1>[^/]+)`)
		c.templates = append(c.templates, template{path, regexp.MustCompile("^" + pattern + "$")})
	}
	// Of several matching paths, the one with the longest literal part.
	slices.SortFunc(c.templates, func(a, b template) int {
		literal := func(t template) int { return len(inPath.ReplaceAllString(regexp.QuoteMeta(t.path), "")) }
		return literal(b) - literal(a)
	})

	// kin-openapi compiles a schema anew for each value, which takes milliseconds. So schemas are
	// compiled once, by the library that it uses for this.
	raw, err := doc.MarshalJSON()
	if err != nil {
		return nil, err
	}
	resource, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	c.compiler = jsonschema.NewCompiler()
	c.compiler.DefaultDraft(jsonschema.Draft2020)
	c.compiler.AssertFormat()
	return c, c.compiler.AddResource("openapi.json", resource)
})

// holdToContract fails the test if the answer, or a request that succeeded, is not in the document.
func holdToContract(t testing.TB, request *fasthttp.Request, a answer) {
	t.Helper()
	c, err := theContract()
	if err != nil {
		t.Fatalf("openapi.yaml: %v", err)
	}
	method, path := string(request.Header.Method()), string(request.URI().PathOriginal())
	route, params := c.route(method, path)
	wrong := func(what string, err error) {
		t.Errorf("%s %s, answered %d: openapi.yaml: %s: %v", method, path, a.status, what, err)
	}
	response, pointer, err := c.response(route, a.status)
	if err != nil {
		wrong("answer", err)
		return
	}
	if err := c.checkAnswer(response, pointer, method, a); err != nil {
		wrong("answer", err)
	}
	if a.status < 400 {
		if err := c.checkRequest(route, params, request, a); err != nil {
			wrong("request", err)
		}
	}
}

// inPath finds a parameter in a path whose meta characters are quoted.
var inPath = regexp.MustCompile(`\\\{([a-z]+)\\\}`)

// route returns the operation of the request. The route has no operation if the document has none
// for the method, and is nil if it has none for the path.
func (c *contract) route(method, path string) (*routers.Route, map[string]string) {
	for _, t := range c.templates {
		match := t.pattern.FindStringSubmatch(path)
		if match == nil {
			continue
		}
		params := map[string]string{}
		for i, name := range t.pattern.SubexpNames()[1:] {
			params[name] = cmp.Or(match[i+1], "index.html") // of /dashboard/
		}
		item := c.doc.Paths.Value(t.path)
		operation := item.GetOperation(method)
		if operation == nil && method == fasthttp.MethodHead {
			method, operation = fasthttp.MethodGet, item.Get
		}
		return &routers.Route{Spec: c.doc, Path: t.path, PathItem: item, Method: method, Operation: operation}, params
	}
	return &routers.Route{Spec: c.doc}, nil
}

// response returns what the document has for the status, and its JSON pointer.
func (c *contract) response(route *routers.Route, status int) (*openapi3.Response, string, error) {
	component := func(name string) (*openapi3.Response, string, error) {
		return c.doc.Components.Responses[name].Value, "/components/responses/" + name, nil
	}
	switch {
	case route.Operation != nil:
		key := fmt.Sprint(status)
		ref := route.Operation.Responses.Value(key)
		if ref == nil {
			key, ref = "default", route.Operation.Responses.Default()
		}
		c.mu.Lock()
		c.seen[route.Operation.OperationID+" "+key] = true
		c.mu.Unlock()
		if ref.Ref != "" {
			return ref.Value, strings.TrimPrefix(ref.Ref, "#"), nil
		}
		return ref.Value, fmt.Sprintf("/paths/%s/%s/responses/%s", escape(route.Path), strings.ToLower(route.Method), key), nil
	case status == fasthttp.StatusNotFound: // of a path that is not there, or would not be with another method
		return component("NotFound")
	case status == fasthttp.StatusMethodNotAllowed && route.PathItem != nil:
		return component("MethodNotAllowed")
	case status >= 400:
		return component("Failure")
	}
	return nil, "", errors.New("no such operation")
}

// unseen lists the statuses of operations that no answer had. A default depends on the server, not
// on the operation, and is left out.
func unseen() (missing []string) {
	c, err := theContract()
	if err != nil {
		return []string{err.Error()}
	}
	if len(c.seen) == 0 {
		return nil // the tests were skipped: no Redis here
	}
	for path, item := range c.doc.Paths.Map() {
		for method, operation := range item.Operations() {
			for status := range operation.Responses.Map() {
				if status != "default" && !c.seen[operation.OperationID+" "+status] {
					missing = append(missing, method+" "+path+" "+status)
				}
			}
		}
	}
	slices.Sort(missing)
	return missing
}

// ofHTTP are headers of HTTP itself. withAny are those that any request may have: a key or a session
// does no harm if none is needed, and some are of browsers and of Nginx.
var (
	ofHTTP  = []string{"Content-Type", "Content-Length", "Connection", "Date", "Transfer-Encoding"}
	withAny = []string{"Host", "Api-Key", "X-Api-Key", "Authorization", "Cookie", "Origin", "Sec-Fetch-Site", "User-Agent", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Cf-Ipcountry"}
)

func (c *contract) checkAnswer(response *openapi3.Response, pointer, method string, a answer) error {
	for name := range a.header.All() {
		if !slices.Contains(ofHTTP, string(name)) && !contains(maps.Keys(response.Headers), string(name)) {
			return fmt.Errorf("header %s is not documented", name)
		}
	}
	for name, header := range response.Headers {
		value := a.header.Peek(name)
		if value == nil {
			if header.Value.Required {
				return fmt.Errorf("header %s is missing", name)
			}
			continue
		}
		at := pointer + "/headers/" + name
		if header.Ref != "" {
			at = strings.TrimPrefix(header.Ref, "#")
		}
		if err := c.checkText(at+"/schema", header.Value.Schema.Value, string(value)); err != nil {
			return fmt.Errorf("header %s: %w", name, err)
		}
	}
	if method == fasthttp.MethodHead || len(response.Content) == 0 {
		if a.body != "" {
			return fmt.Errorf("a body of %d bytes, want none", len(a.body))
		}
		return nil
	}
	kind := string(a.header.ContentType())
	content := response.Content[kind]
	if content == nil {
		return fmt.Errorf("Content-Type %q is not documented", kind)
	}
	if content.Schema == nil { // of bytes there is nothing to say
		return nil
	}
	if a.status >= 400 && !strings.Contains(a.body, fmt.Sprintf(`"status":%d,`, a.status)) {
		return errors.New("the body says another status")
	}
	return c.checkBody(pointer, kind, a.body)
}

// checkBody checks a body of the type against the schema of the content at the JSON pointer. For
// NDJSON it checks each line.
func (c *contract) checkBody(pointer, kind, body string) error {
	at := pointer + "/content/" + escape(kind) + "/schema"
	switch kind {
	case "application/x-ndjson":
		for line := range strings.Lines(body) {
			if strings.TrimSpace(line) == "" {
				continue
			}
			if err := c.checkJSON(at, line); err != nil {
				return fmt.Errorf("line %s: %w", line, err)
			}
		}
		return nil
	case "application/json", "application/problem+json":
		return c.checkJSON(at, body)
	}
	return c.check(at, body)
}

func (c *contract) checkRequest(route *routers.Route, params map[string]string, request *fasthttp.Request, a answer) error {
	operation := route.Operation
	if operation == nil {
		return errors.New("no such operation")
	}
	parameters := slices.Concat(route.PathItem.Parameters, operation.Parameters)
	documented := func(in, name string) bool {
		return slices.ContainsFunc(parameters, func(p *openapi3.ParameterRef) bool {
			return p.Value.In == in && (strings.EqualFold(p.Value.Name, name) || p.Value.Schema.Value.Type.Is("object"))
		})
	}
	sent := http.Header{}
	for name, value := range request.Header.All() {
		sent.Add(string(name), string(value))
	}
	for name := range sent {
		if !slices.Contains(ofHTTP, name) && !slices.Contains(withAny, name) && !documented(openapi3.ParameterInHeader, name) {
			return fmt.Errorf("header %s is not documented", name)
		}
	}
	for name := range request.URI().QueryArgs().All() {
		if !documented(openapi3.ParameterInQuery, string(name)) {
			return fmt.Errorf("parameter %s is not documented", name)
		}
	}

	copied, err := http.NewRequest(route.Method, request.URI().String(), nil)
	if err != nil {
		return err
	}
	copied.Header = sent
	input := &openapi3filter.RequestValidationInput{
		Request: copied, PathParams: params, Route: route,
		Options: &openapi3filter.Options{ExcludeRequestBody: true, AuthenticationFunc: hasKey},
	}
	if err := openapi3filter.ValidateRequest(context.Background(), input); err != nil {
		return err
	}

	if operation.RequestBody == nil || partlyRefused(a) {
		return nil
	}
	at := fmt.Sprintf("/paths/%s/%s/requestBody", escape(route.Path), strings.ToLower(route.Method))
	if ref := operation.RequestBody.Ref; ref != "" {
		at = strings.TrimPrefix(ref, "#")
	}
	body := string(request.Body())
	return c.checkBody(at, kindOf(operation.RequestBody.Value.Content, body), body)
}

// partlyRefused reports whether some items of the answer were refused: tests may have made those
// wrong on purpose.
func partlyRefused(a answer) bool {
	return strings.Contains(a.body, `"type":"about:blank"`) || strings.Contains(a.body, `"result":"invalid"`)
}

// kindOf returns the type of a body, which its first byte tells.
func kindOf(content openapi3.Content, body string) string {
	body = strings.TrimSpace(body)
	switch {
	case len(content) == 1 || strings.HasPrefix(body, "["):
		return "application/json"
	case strings.HasPrefix(body, "{"):
		return "application/x-ndjson"
	}
	return "text/csv"
}

// hasKey reports whether the request has a key in the way of the scheme.
func hasKey(_ context.Context, input *openapi3filter.AuthenticationInput) error {
	if input.SecurityScheme.In == "cookie" {
		_, err := input.RequestValidationInput.Request.Cookie(input.SecurityScheme.Name)
		return err
	}
	header, prefix := input.SecurityScheme.Name, ""
	if input.SecurityScheme.Type == "http" {
		header, prefix = "Authorization", "bearer "
	}
	value := input.RequestValidationInput.Request.Header.Get(header)
	if len(value) <= len(prefix) || !strings.EqualFold(value[:len(prefix)], prefix) {
		return errors.New("no key")
	}
	return nil
}

// checkText checks the value of a header, which may be a number.
func (c *contract) checkText(at string, schema *openapi3.Schema, text string) error {
	if !schema.Type.Is("integer") {
		return c.check(at, text)
	}
	return c.checkJSON(at, text)
}

// checkJSON checks a JSON text against the schema at a JSON pointer.
func (c *contract) checkJSON(at, text string) error {
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		return err
	}
	return c.check(at, value)
}

// check checks a value against the schema at a JSON pointer.
func (c *contract) check(at string, value any) error {
	c.mu.Lock()
	schema, err := c.schemas[at], error(nil)
	if schema == nil {
		schema, err = c.compiler.Compile("openapi.json#" + at)
		c.schemas[at] = schema
	}
	c.mu.Unlock()
	if err != nil {
		return err
	}
	return schema.Validate(value)
}

// contains reports whether the header is among those, in upper or lower case.
func contains(headers iter.Seq[string], name string) bool {
	for header := range headers {
		if strings.EqualFold(header, name) {
			return true
		}
	}
	return false
}

// escape makes s a token of a JSON pointer, in a URL.
func escape(s string) string {
	s = strings.NewReplacer("~", "~0", "/", "~1").Replace(s)
	return strings.NewReplacer("{", "%7B", "}", "%7D", " ", "%20").Replace(s)
}
