package httpapi

import (
	"bufio"
	"encoding/csv"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// columns are the columns that an import reads, by their names in the header row. It ignores all
// others, such as clicks and domains, and in a name it ignores the case, spaces, hyphens and
// underscores. These CSVs are known:
//
//   - Our own export: code, url, and what else exportColumns has.
//   - YOURLS, its table or a plugin's export of it: keyword, url, title, timestamp.
//   - Kutt, as its API and its table call them: address, target, description, expire_in, banned,
//     created_at. A link with a password is refused.
//   - Shlink's web client: shortCode or else shortUrl, longUrl, title, tags, createdAt. And what
//     Shlink itself imports: Short code, Long URL, Title, Tags.
//   - Bitly: Custom Link if there is one, or else Link or Bitlink; Long URL or Destination URL;
//     Title, Tags, Created.
var columns = map[string]column{
	"code": colCode, "keyword": colCode, "address": colCode, "shortcode": colCode,
	"customlink": colCustomLink,
	"shorturl":   colShortURL, "link": colShortURL, "bitlink": colShortURL,
	"url": colURL, "target": colURL, "longurl": colURL, "destinationurl": colURL,
	"title": colTitle, "description": colDescription,
	"tags":      colTags,
	"createdat": colCreated, "timestamp": colCreated, "created": colCreated, "datecreated": colCreated, "createddate": colCreated,
	"expiresat": colExpires, "expirein": colExpires,
	"maxvisits": colMaxVisits, "status": colStatus, "forwardquery": colForwardQuery,
	"disabled": colDisabled, "banned": colDisabled,
	"password": colPassword,
	"owner":    colOwner,
}

// column is what a column says about a link.
type column int

const (
	colIgnored column = iota
	colCode
	colCustomLink
	colShortURL
	colURL
	colTitle
	colDescription
	colTags
	colCreated
	colExpires
	colMaxVisits
	colStatus
	colForwardQuery
	colDisabled
	colPassword
	colOwner
)

var errHeader error = &bodyError{problemInvalidRequest,
	"The header row is not known. It must name a column for the code and one for the URL, as those of an export, Bitly, YOURLS, Kutt and Shlink do."}

// maxColumns bounds what a row costs. No CSV that an import knows has a third as many.
const maxColumns = 64

// csvRows reads the rows of a CSV.
type csvRows struct {
	csv       *csv.Reader
	budget    *budget
	columns   []column
	ours      bool // written by an export of ours, and held to our rules
	hasCustom bool // there is a colCustomLink
}

// newCSVRows reads the header row. The columns are separated by commas, semicolons or tabs: by what
// the header row has most of.
func newCSVRows(r *bufio.Reader) (*csvRows, error) {
	header, err := r.Peek(1024)
	if err != nil && err != io.EOF {
		return nil, err
	}
	first, _, _ := strings.Cut(string(header), "\n")
	c := &csvRows{budget: &budget{r: r, err: errLongRow}}
	c.csv = csv.NewReader(c.budget)
	c.csv.ReuseRecord = true
	for _, comma := range ";\t" {
		if strings.Count(first, string(comma)) > strings.Count(first, string(c.csv.Comma)) {
			c.csv.Comma = comma
		}
	}
	names, err := c.next()
	if err != nil {
		return nil, errHeader
	}
	if len(names) > maxColumns {
		return nil, &bodyError{problemInvalidRequest, "The header row may have at most " + thousands(maxColumns) + " columns."}
	}
	for _, name := range names {
		name = strings.NewReplacer(" ", "", "_", "", "-", "").Replace(strings.ToLower(name))
		c.columns = append(c.columns, columns[name])
		c.ours = c.ours || name == "code"
	}
	has := func(c2 column) bool { return slices.Contains(c.columns, c2) }
	c.hasCustom = has(colCustomLink)
	if !has(colURL) || !has(colCode) && !has(colShortURL) && !c.hasCustom {
		return nil, errHeader
	}
	return c, nil
}

func (c *csvRows) next() ([]string, error) {
	c.budget.left = MaxBody
	return c.csv.Read()
}

func (c *csvRows) read(into *importRequest) (line int, err error) {
	record, err := c.next()
	if syntax, ok := errors.AsType[*csv.ParseError](err); ok {
		return syntax.StartLine, fieldErrorf("The row is not valid CSV (RFC 4180), or does not have as many cells as the header row.")
	}
	if err != nil {
		return 0, err
	}
	line, _ = c.csv.FieldPos(0)
	for i, cell := range record {
		if c.ours {
			cell = unquoteFormula(cell)
		} else {
			cell = strings.TrimSpace(cell)
		}
		if cell == "" {
			continue
		}
		if err == nil { // of several errors, the first
			err = c.set(into, c.columns[i], cell)
		}
	}
	return line, err
}

// set puts the value of a cell into the row.
func (c *csvRows) set(r *importRequest, col column, cell string) (err error) {
	if !utf8.ValidString(cell) {
		return fieldErrorf("The row is not UTF-8.")
	}
	switch col {
	case colCode:
		r.Code = cell
	case colCustomLink:
		r.ShortURL = cell
	case colShortURL:
		if r.ShortURL == "" || !c.hasCustom {
			r.ShortURL = cell
		}
	case colURL:
		r.URL = given(cell)
	case colTitle:
		r.Title = given(c.title(cell))
	case colDescription:
		if !r.Title.set {
			r.Title = given(c.title(cell))
		}
	case colTags:
		r.Tags = given(c.tags(cell))
	case colCreated:
		if at, ok := c.time(cell); ok {
			r.CreatedAt = given(at)
		}
	case colExpires:
		at, _ := c.time(cell)
		r.ExpiresAt = given(at) // a cell that is no time is refused when the row is checked
	case colMaxVisits:
		r.MaxVisits.set = true
		if r.MaxVisits.value, err = strconv.ParseInt(cell, 10, 64); err != nil {
			return fieldErrorf(`The field "max_visits" must be a whole number.`)
		}
	case colStatus:
		r.Status.set = true
		if r.Status.value, err = strconv.Atoi(cell); err != nil {
			return fieldErrorf(`The field "status" must be a whole number.`)
		}
	case colForwardQuery:
		r.ForwardQuery.set = true
		if r.ForwardQuery.value, err = strconv.ParseBool(cell); err != nil {
			return fieldErrorf(`The field "forward_query" must be true or false.`)
		}
	case colDisabled:
		r.Disabled.set = true
		if r.Disabled.value, err = strconv.ParseBool(cell); err != nil {
			return fieldErrorf(`The field "disabled" must be true or false.`)
		}
	case colOwner:
		if c.ours { // elsewhere it is no key of ours
			r.Owner = given(cell)
		}
	case colPassword:
		if has, err := strconv.ParseBool(cell); err != nil || has {
			return fieldErrorf("The link has a password, and links here cannot have one.")
		}
	}
	return nil
}

func given[T any](v T) field[T] { return field[T]{set: true, value: v} }

// title returns a title that a link here may have. Other services often take that of the page, of
// any length and with line breaks. That is no reason to refuse the link.
func (c *csvRows) title(cell string) string {
	if c.ours {
		return cell
	}
	cell = strings.Join(strings.FieldsFunc(cell, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }), " ")
	if runes := []rune(cell); len(runes) > maxTitle {
		cell = strings.TrimSpace(string(runes[:maxTitle]))
	}
	return cell
}

func (c *csvRows) tags(cell string) (tags []string) {
	separators := ",|"
	if c.ours {
		separators = ","
	}
	for _, tag := range strings.FieldsFunc(cell, func(r rune) bool { return strings.ContainsRune(separators, r) }) {
		if !c.ours {
			tag = strings.TrimSpace(tag)
		}
		tags = append(tags, tag)
	}
	return tags
}

// timeLayouts are the forms in which other services write times. A time without a zone is taken for
// UTC.
var timeLayouts = []string{
	time.RFC3339, "2006-01-02T15:04:05-0700", "2006-01-02T15:04:05",
	"2006-01-02 15:04:05Z07:00", "2006-01-02 15:04:05-07", "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02",
}

// time returns the time in RFC 3339, or the cell as it is and false. A cell of our own export is
// checked later.
func (c *csvRows) time(cell string) (at string, ok bool) {
	if c.ours {
		return cell, true
	}
	for _, layout := range timeLayouts {
		if t, err := time.Parse(layout, cell); err == nil {
			return t.UTC().Format(time.RFC3339Nano), true
		}
	}
	return cell, false
}

// errLongRow reports a row that is longer than the body of any other route may be. Without this
// limit, a quotation mark that is never closed would put the rest of the body into one cell.
var errLongRow error = &bodyError{problemInvalidRequest, "A row has more than " + thousands(MaxBody) + " bytes. A quotation mark may be missing."}

// budget bounds how many bytes of a body are read until it is refilled. When none are left, it
// fails with err.
type budget struct {
	r    io.Reader
	left int
	err  error
}

func (b *budget) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, b.err
	}
	n, err := b.r.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}
