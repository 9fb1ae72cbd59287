// Package client makes, manages and follows short links over Snowlink's API.
//
// It holds three decisions. A call is one request, and nothing is retried behind the caller's back:
// only the caller knows for how long to try. What the service refuses is an [*Error]: programs
// branch on its Code, and wait for its RetryAfter. The package needs nothing but the standard
// library.
//
// Every method may be called concurrently, and ends when ctx ends.
package client

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Client speaks to one service. Do not change it while it is in use.
type Client struct {
	// BaseURL is where the service is, such as "https://sno.example".
	BaseURL string
	// APIKey needs the scopes of the calls: create, read or manage, and admin for the links of other
	// key names. To follow links takes no key.
	APIKey string
	// HTTP sends the requests; nil means http.DefaultClient. It follows no redirect, whatever its
	// CheckRedirect says.
	HTTP *http.Client
}

// NewLink is a link to be made. A field other than URL may be zero: the service then decides.
type NewLink struct {
	// URL is the target: an http or https URL of at most 2,048 bytes.
	URL string `json:"url"`
	// Code is the code to use: 3 to 64 letters, digits, hyphens and underscores. If it is empty,
	// the service mints one.
	Code string `json:"code,omitempty"`
	// ExpiresAt is when the link stops working.
	ExpiresAt time.Time `json:"expires_at,omitzero"`
	// MaxVisits is how many redirects the link gives in its life.
	MaxVisits int64 `json:"max_visits,omitempty"`
	// Status is the status of the redirect: 301, 302, 307 or 308.
	Status int `json:"status,omitempty"`
	// ForwardQuery appends the query of a visit to the target's own.
	ForwardQuery bool `json:"forward_query,omitempty"`
	// Title and Tags are for those who manage the link.
	Title string   `json:"title,omitempty"`
	Tags  []string `json:"tags,omitempty"`

	// IdempotencyKey makes it safe to send the link again, as after a timeout: the same key and
	// link within 24 hours make one link. CreateAll takes none.
	IdempotencyKey string `json:"-"`
}

// Link is a link as the service has it.
type Link struct {
	ShortURL     string    `json:"short_url"`
	Code         string    `json:"code"`
	URL          string    `json:"url"` // as browsers spell it, which may differ from what was sent
	CreatedAt    time.Time `json:"created_at"`
	Owner        string    `json:"owner"`      // the name of the key that made it; empty for API_KEY
	ExpiresAt    time.Time `json:"expires_at"` // zero for never
	MaxVisits    int64     `json:"max_visits"` // 0 for any number
	VisitsLeft   int64     `json:"visits_left"`
	Status       int       `json:"status"`
	ForwardQuery bool      `json:"forward_query"`
	Title        string    `json:"title"`
	Tags         []string  `json:"tags"`
	Disabled     bool      `json:"disabled"`
	Deleted      bool      `json:"deleted"` // only in lists of what is gone, and then without URL
	Clicks       *int64    `json:"clicks"`  // of people; only with Query.WithClicks

	// Version is opaque, for [Change.IfVersion]. Like VisitsLeft, it is set by Get and Update only.
	Version string `json:"-"`
}

// Change is what Update changes. A field that is nil stays as it is. A field that points to the
// zero value is removed. With Go 1.26, new("text") points to a text.
type Change struct {
	URL          *string
	ExpiresAt    *time.Time
	MaxVisits    *int64
	Status       *int
	ForwardQuery *bool
	Title        *string
	Tags         *[]string
	// Disabled closes the link, until false opens it again.
	Disabled *bool

	// IfVersion is the Version of a Link. If the link has another version by now, nothing is
	// changed, and the Code of the Error is "precondition_failed".
	IfVersion string
}

// Query says which links a list has. The zero value is all that keys of this name have made and that
// are not gone, newest first.
type Query struct {
	// Owner is another key name, which takes the scope admin. The links of API_KEY are those of
	// "default". "*" is everyone's, if the service has an archive.
	Owner string
	// Words are words, all of which a link has in its target, code, title and tags. They are whole
	// words, unless the operator turned on that they are also found within others.
	Words string
	Tag   string
	// State is "active", "disabled" or "gone": only links that lead somewhere, that are disabled, or
	// that expired or were deleted in the last 30 days.
	State string
	// From and To are when the links were made: at From or later, and before To.
	From, To time.Time
	Oldest   bool // first
	// WithClicks asks how often each link was clicked.
	WithClicks bool
	// Limit is how many links a page has at most, up to 1,000. 0 is 100.
	Limit int
	// Cursor is the Next of the page before.
	Cursor string
}

// Page is a part of a list.
type Page struct {
	Links []Link `json:"links"`
	// Next is the Cursor of the next page, and empty if there is none. A page that has one may be
	// short, or empty.
	Next string `json:"next"`
	// Total is how many links all pages have. It is nil if that is not known, and on later pages.
	Total           *int64 `json:"total"`
	TotalIsEstimate bool   `json:"total_is_estimate"`
	// NewestOnly is nil if the service has an archive. Otherwise it looks only through the newest
	// links of a key name: this many at least.
	NewestOnly *int64 `json:"newest_only"`
	// Incomplete says that links that were made or changed a moment ago may be missing, since the
	// archive is behind.
	Incomplete bool `json:"incomplete"`
}

// Result is what became of one link of CreateAll. Err is nil or an [*Error].
type Result struct {
	Link Link
	Err  error
}

// An Error is an answer of the service that is not a success.
type Error struct {
	Status int // of HTTP
	// Code says what is wrong, for programs: "code_taken", "not_found", "gone" and so on, as in the
	// /openapi.yaml of the service. It is empty if something between here and the service has
	// answered.
	Code string
	// Detail says it for people.
	Detail string
	// RetryAfter is how long to wait before another try, or 0 if another try does not help.
	RetryAfter time.Duration
}

// Error returns the detail, status and code.
func (e *Error) Error() string {
	return fmt.Sprintf("snowlink: %s (%s)", e.Detail, strings.TrimSpace(strconv.Itoa(e.Status)+" "+e.Code))
}

const (
	// maxBulk is how many links the service takes in one request.
	maxBulk = 10_000

	// maxBulkBody is half of the bytes that it takes, which leaves room for the last link, however
	// long it is.
	maxBulkBody = 8 << 20
)

// Create makes a link.
func (c *Client) Create(ctx context.Context, l NewLink) (Link, error) {
	return c.link(ctx, http.MethodPost, "/links", l, "Idempotency-Key", l.IdempotencyKey)
}

// CreateAll makes many links in few requests. It returns a result for each, in order. If it fails,
// it returns results for the links that were answered. The next ones may have been made or not.
func (c *Client) CreateAll(ctx context.Context, links []NewLink) ([]Result, error) {
	results := make([]Result, 0, len(links))
	for rest := links; len(rest) > 0; {
		body, n, err := bulkBody(rest)
		if err != nil {
			return results, err
		}
		rest = rest[n:]
		resp, err := c.do(ctx, http.MethodPost, "/links/bulk", body)
		if err != nil {
			return results, err
		}
		results, err = readResults(resp.Body, results)
		resp.Body.Close()
		if err != nil {
			return results, err
		}
	}
	if len(results) != len(links) {
		return results, fmt.Errorf("snowlink: %d answers to %d links", len(results), len(links))
	}
	return results, nil
}

// bulkBody returns an array of as many of the links as one request takes, and how many these are.
func bulkBody(links []NewLink) (body json.RawMessage, n int, err error) {
	body = append(body, '[')
	for n < min(len(links), maxBulk) && len(body) < maxBulkBody {
		b, err := json.Marshal(links[n])
		if err != nil {
			return nil, 0, fmt.Errorf("snowlink: %w", err)
		}
		if n > 0 {
			body = append(body, ',')
		}
		body = append(body, b...)
		n++
	}
	return append(body, ']'), n, nil
}

// readResults appends the results in an array, as far as it can be read.
func readResults(body io.Reader, results []Result) ([]Result, error) {
	d := json.NewDecoder(body)
	if _, err := d.Token(); err != nil {
		return results, fmt.Errorf("snowlink: read an answer: %w", err)
	}
	for d.More() {
		var item json.RawMessage
		if err := d.Decode(&item); err != nil {
			return results, fmt.Errorf("snowlink: read answer %d: %w", len(results)+1, err)
		}
		var p problem
		var r Result
		err := json.Unmarshal(item, &p)
		if err == nil && p.Type != "" {
			r.Err = p.error()
		} else if err == nil {
			err = json.Unmarshal(item, &r.Link)
		}
		if err != nil {
			return results, fmt.Errorf("snowlink: read answer %d: %w", len(results)+1, err)
		}
		results = append(results, r)
	}
	if _, err := d.Token(); err != nil {
		return results, fmt.Errorf("snowlink: read an answer: %w", err)
	}
	return results, nil
}

// Follow returns where the link leads now, as a visitor would learn it. It does not go there. If
// the visits of the link are counted, it counts as one.
func (c *Client) Follow(ctx context.Context, code string) (target string, err error) {
	resp, err := c.do(ctx, http.MethodGet, "/"+url.PathEscape(code), nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	target = resp.Header.Get("Location")
	if resp.StatusCode < 300 || target == "" {
		return "", &Error{Status: resp.StatusCode, Detail: "What is at /" + code + " is not a link."}
	}
	return target, nil
}

// Get returns the link as it is now, even if it is expired or disabled. It does not count as a
// visit.
func (c *Client) Get(ctx context.Context, code string) (Link, error) {
	return c.link(ctx, http.MethodGet, "/links/"+url.PathEscape(code), nil)
}

// Update changes the link and returns it as it is afterwards. All visitors see the change within a
// second.
func (c *Client) Update(ctx context.Context, code string, change Change) (Link, error) {
	return c.link(ctx, http.MethodPatch, "/links/"+url.PathEscape(code), change.patch(), "If-Match", change.IfVersion)
}

// patch returns the change as a JSON merge patch.
func (ch Change) patch() map[string]any {
	p := make(map[string]any)
	put(p, "url", ch.URL)
	put(p, "expires_at", ch.ExpiresAt)
	put(p, "max_visits", ch.MaxVisits)
	put(p, "status", ch.Status)
	put(p, "forward_query", ch.ForwardQuery)
	put(p, "title", ch.Title)
	put(p, "disabled", ch.Disabled)
	if ch.Tags != nil {
		p["tags"] = *ch.Tags
	}
	return p
}

func put[T comparable](p map[string]any, name string, value *T) {
	var zero T
	switch {
	case value == nil:
	case *value == zero:
		p[name] = nil
	default:
		p[name] = *value
	}
}

// Delete deletes the link, for good. Its code is gone for 30 days and cannot be taken before then,
// unless a full Redis evicts what it knows of it. To delete a link twice is no error.
func (c *Client) Delete(ctx context.Context, code string) error {
	resp, err := c.do(ctx, http.MethodDelete, "/links/"+url.PathEscape(code), nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// List returns the links that keys of this name have made, newest first. With a tag, it returns
// only those that have it. It is a Search for them.
func (c *Client) List(ctx context.Context, tag string) iter.Seq2[Link, error] {
	return c.Search(ctx, Query{Tag: tag})
}

// Search returns all links that the query asks for, from its Cursor on. They are fetched while the
// caller iterates. An error comes last, with a zero Link. What the service says of the pages, such as
// how many links there are, only Page returns.
func (c *Client) Search(ctx context.Context, q Query) iter.Seq2[Link, error] {
	return func(yield func(Link, error) bool) {
		for {
			page, err := c.Page(ctx, q)
			if err != nil {
				yield(Link{}, err)
				return
			}
			for _, l := range page.Links {
				if !yield(l, nil) {
					return
				}
			}
			if q.Cursor = page.Next; q.Cursor == "" {
				return
			}
		}
	}
}

// Page returns one page of the links that the query asks for.
func (c *Client) Page(ctx context.Context, q Query) (Page, error) {
	query := make(url.Values)
	set := func(name, value string) {
		if value != "" {
			query.Set(name, value)
		}
	}
	set("owner", q.Owner)
	set("q", q.Words)
	set("tag", q.Tag)
	set("state", q.State)
	set("cursor", q.Cursor)
	if !q.From.IsZero() {
		set("from", q.From.Format(time.RFC3339Nano))
	}
	if !q.To.IsZero() {
		set("to", q.To.Format(time.RFC3339Nano))
	}
	if q.Oldest {
		set("sort", "oldest")
	}
	if q.WithClicks {
		set("with", "clicks")
	}
	if q.Limit > 0 {
		set("limit", strconv.Itoa(q.Limit))
	}
	var page Page
	err := c.read(ctx, "/links?"+query.Encode(), &page)
	return page, err
}

func (c *Client) read(ctx context.Context, path string, into any) error {
	resp, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return decode(resp, into)
}

// link sends a request whose answer is a link.
func (c *Client) link(ctx context.Context, method, path string, body any, header ...string) (Link, error) {
	resp, err := c.do(ctx, method, path, body, header...)
	if err != nil {
		return Link{}, err
	}
	defer resp.Body.Close()
	l := Link{Version: resp.Header.Get("ETag")}
	if err := decode(resp, &l); err != nil {
		return Link{}, err
	}
	return l, nil
}

func decode(resp *http.Response, into any) error {
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		return fmt.Errorf("snowlink: read the answer: %w", err)
	}
	return nil
}

// do sends a request, with the body as JSON unless it is nil. header alternates names and values.
// An empty value is not sent. An answer that is not a success is an error.
func (c *Client) do(ctx context.Context, method, path string, body any, header ...string) (*http.Response, error) {
	var content io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("snowlink: %w", err)
		}
		content = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.BaseURL, "/")+path, content)
	if err != nil {
		return nil, fmt.Errorf("snowlink: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.APIKey != "" {
		req.Header.Set("API-Key", c.APIKey)
	}
	for pair := range slices.Chunk(header, 2) {
		if pair[1] != "" {
			req.Header.Set(pair[0], pair[1])
		}
	}
	client := *cmp.Or(c.HTTP, http.DefaultClient)
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("snowlink: %w", err)
	}
	if resp.StatusCode < 400 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, readError(resp)
}

// problem is an error of the service (RFC 9457).
type problem struct {
	Type   string
	Status int
	Code   string
	Detail string
}

func (p problem) error() *Error { return &Error{Status: p.Status, Code: p.Code, Detail: p.Detail} }

// maxProblem is more bytes than any problem has.
const maxProblem = 16 << 10

func readError(resp *http.Response) error {
	p := problem{Status: resp.StatusCode, Detail: http.StatusText(resp.StatusCode)}
	if kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); kind == "application/problem+json" {
		if err := json.NewDecoder(io.LimitReader(resp.Body, maxProblem)).Decode(&p); err != nil {
			return errors.Join(p.error(), fmt.Errorf("read the problem: %w", err))
		}
	}
	e := p.error()
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil {
		e.RetryAfter = time.Duration(seconds) * time.Second
	}
	return e
}
