package browser_test

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/dom"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// A thing is an element as the accessibility tree has it: what it is and what it is called.
type thing struct {
	p    *tab
	id   cdp.BackendNodeID
	role string
	name string
}

// things returns what is on the page, or in the first element that the selector finds, of a role such as
// "button", with a name or with any if that is empty. A name that ends with … is the begin of one.
func (p *tab) things(within, role, name string) []thing {
	p.t.Helper()
	expression := "document"
	if within != "" {
		expression = fmt.Sprintf("document.querySelector(%q)", within)
	}
	root := call(p, runtime.Evaluate, runtime.EvaluateParams{Expression: expression}).Result
	if root == nil || root.ObjectID == "" {
		return nil
	}
	result, err := chromedp.Call(p.ctx, accessibility.QueryAXTree, accessibility.QueryAXTreeParams{ObjectID: root.ObjectID, Role: role})
	if err != nil {
		return nil // the page has changed meanwhile
	}
	var found []thing
	for _, node := range result.Nodes {
		called := ""
		if node.Name != nil {
			_ = json.Unmarshal(node.Name.Value, &called) // no text is no name
		}
		begin, isBegin := strings.CutSuffix(name, "…")
		if !node.Ignored && (name == "" || called == name || isBegin && strings.HasPrefix(called, begin)) {
			found = append(found, thing{p, node.BackendDOMNodeID, role, called})
		}
	}
	return found
}

// find waits until there is a thing, and returns the first.
func (p *tab) find(role, name string) thing {
	p.t.Helper()
	return p.findIn("", role, name)
}

func (p *tab) findIn(within, role, name string) (found thing) {
	p.t.Helper()
	p.until(fmt.Sprintf("there is a %s %q %s", role, name, within), func() bool {
		all := p.things(within, role, name)
		if len(all) > 0 {
			found = all[0]
		}
		return len(all) > 0
	})
	return found
}

// gone waits until there is no such thing.
func (p *tab) gone(role, name string) {
	p.t.Helper()
	p.until(fmt.Sprintf("there is no %s %q", role, name), func() bool { return len(p.things("", role, name)) == 0 })
}

// click clicks on a thing in its middle, as soon as it is there and nothing lies above it.
func (p *tab) click(role, name string) {
	p.t.Helper()
	p.clickIn("", role, name)
}

func (p *tab) clickIn(within, role, name string) {
	p.t.Helper()
	p.until(fmt.Sprintf("there is a %s %q %s to click on", role, name, within), func() bool {
		all := p.things(within, role, name)
		return len(all) > 0 && all[0].click()
	})
}

// click reports whether the thing could be clicked on.
func (th thing) click() bool {
	p := th.p
	x, y, ok := th.middle()
	if !ok {
		return false
	}
	for _, kind := range []input.DispatchMouseEventType{input.DispatchMouseEventTypeMouseMoved, input.DispatchMouseEventTypeMousePressed, input.DispatchMouseEventTypeMouseReleased} {
		params := input.DispatchMouseEventParams{Type: kind, X: x, Y: y}
		if kind != input.DispatchMouseEventTypeMouseMoved {
			params.Button, params.ClickCount = input.MouseButtonLeft, 1
		}
		call(p, input.DispatchMouseEvent, params)
	}
	return true
}

// middle scrolls the thing into view and returns where its middle is. It is not ok if that is not in
// the window, or belongs to something that lies above.
func (th thing) middle() (x, y float64, ok bool) {
	if _, err := chromedp.Call(th.p.ctx, dom.ScrollIntoViewIfNeeded, dom.ScrollIntoViewIfNeededParams{BackendNodeID: th.id}); err != nil {
		return 0, 0, false
	}
	quads, err := chromedp.Call(th.p.ctx, dom.GetContentQuads, dom.GetContentQuadsParams{BackendNodeID: th.id})
	if err != nil || len(quads.Quads) == 0 {
		return 0, 0, false
	}
	q := quads.Quads[0]
	x, y = (q[0]+q[2]+q[4]+q[6])/4, (q[1]+q[3]+q[5]+q[7])/4
	var free bool
	ok = th.is(&free, `function(x, y) {
		if (this.disabled) return false;
		const at = document.elementFromPoint(x, y);
		return !!at && (this.contains(at) || at.contains(this) && at.localName === "label" || [...(this.labels ?? [])].some((l) => l.contains(at)));
	}`, x, y)
	return x, y, ok && free
}

// is calls a function of JavaScript with the thing as this.
func (th thing) is(result any, function string, args ...any) bool {
	object, err := chromedp.Call(th.p.ctx, dom.ResolveNode, dom.ResolveNodeParams{BackendNodeID: th.id})
	if err != nil {
		return false
	}
	var arguments []*runtime.CallArgument
	for _, arg := range args {
		text, err := json.Marshal(arg)
		th.p.do(err)
		arguments = append(arguments, &runtime.CallArgument{Value: text})
	}
	answer, err := chromedp.Call(th.p.ctx, runtime.CallFunctionOn, runtime.CallFunctionOnParams{
		FunctionDeclaration: function, ObjectID: object.Object.ObjectID, Arguments: arguments, ReturnByValue: new(true),
	})
	if err != nil || answer.ExceptionDetails != nil || answer.Result == nil {
		return false
	}
	return json.Unmarshal(answer.Result.Value, result) == nil
}

// get is a property of the thing, such as its value.
func get[T any](th thing, property string) (value T) {
	th.p.t.Helper()
	if !th.is(&value, "function(name) { return this[name]; }", property) {
		th.p.t.Fatalf("the %s %q has no %s", th.role, th.name, property)
	}
	return value
}

// fields are the roles of what one writes into.
var fields = []string{"textbox", "searchbox", "combobox", "spinbutton"}

// field waits for what one writes into, by its label.
func (p *tab) field(label string) (found thing) {
	p.t.Helper()
	p.until(fmt.Sprintf("there is a field %q", label), func() bool {
		for _, role := range fields {
			if all := p.things("", role, label); len(all) > 0 {
				found = all[0]
				return true
			}
		}
		return false
	})
	return found
}

// write replaces what a field has by a text, as if it were pasted.
func (p *tab) write(label, text string) {
	p.t.Helper()
	p.until(fmt.Sprintf("one can write into the field %q", label), func() bool { return p.field(label).click() })
	eval[bool](p, "document.activeElement.select?.() ?? true")
	if text == "" {
		p.press("Delete")
		return
	}
	p.paste(text)
}

// paste inserts a text where the focus is.
func (p *tab) paste(text string) {
	p.t.Helper()
	call(p, input.InsertText, input.InsertTextParams{Text: text})
}

// choose takes an option of a list that drops down, by its text.
func (p *tab) choose(label, option string) {
	p.t.Helper()
	var chosen bool
	list := p.find("combobox", label)
	// A list that drops down is drawn by the system and not by the page.
	if !list.is(&chosen, `function(text) {
		const option = [...this.options].find((o) => o.text.trim() === text);
		if (!option) return false;
		this.focus();
		this.value = option.value;
		this.dispatchEvent(new Event("input", {bubbles: true}));
		this.dispatchEvent(new Event("change", {bubbles: true}));
		return true;
	}`, option) || !chosen {
		p.t.Fatalf("the list %q has no option %q", label, option)
	}
}

// named are the keys that write nothing, or that have another name than what they write.
var named = map[string]string{
	"Enter": kb.Enter, "Tab": kb.Tab, "Escape": kb.Escape, "Backspace": kb.Backspace, "Delete": kb.Delete, "Space": " ",
	"ArrowUp": kb.ArrowUp, "ArrowDown": kb.ArrowDown, "ArrowLeft": kb.ArrowLeft, "ArrowRight": kb.ArrowRight,
	"Home": kb.Home, "End": kb.End,
}

var modifiers = map[string]chromedp.Modifier{
	"Control": chromedp.ModifierCtrl, "Shift": chromedp.ModifierShift, "Alt": chromedp.ModifierAlt,
}

// press presses keys after each other: "g", "Enter", "Control+a".
func (p *tab) press(all ...string) {
	p.t.Helper()
	for _, key := range all {
		parts := strings.Split(key, "+")
		if key == "+" {
			parts = []string{"+"}
		}
		last := parts[len(parts)-1]
		if named, ok := named[last]; ok {
			last = named
		}
		var held int64
		for _, modifier := range parts[:len(parts)-1] {
			held |= int64(modifiers[modifier])
		}
		for _, r := range last {
			p.stroke(r, held)
		}
	}
}

// stroke presses one key. chromedp's own KeyEvent sends what a key writes apart from its going down, so
// that a page that prevents the one would get the other.
func (p *tab) stroke(r rune, held int64) {
	p.t.Helper()
	events := kb.Encode(r)
	down, up := *events[0], *events[len(events)-1]
	for _, e := range events {
		if e.Type == kb.KeyChar && held&^int64(chromedp.ModifierShift) == 0 {
			down.Type, down.Text, down.UnmodifiedText = input.DispatchKeyEventTypeKeyDown, e.Text, e.UnmodifiedText
		}
	}
	for _, e := range []input.DispatchKeyEventParams{down, up} {
		e.Modifiers |= held
		call(p, input.DispatchKeyEvent, e)
	}
}

// focused says what has the focus: its role and name.
func (p *tab) focused() string {
	p.t.Helper()
	object := call(p, runtime.Evaluate, runtime.EvaluateParams{Expression: "document.activeElement"}).Result
	nodes := call(p, accessibility.GetPartialAXTree, accessibility.GetPartialAXTreeParams{ObjectID: object.ObjectID, FetchRelatives: new(false)}).Nodes
	if len(nodes) == 0 || nodes[0].Role == nil || nodes[0].Name == nil {
		return ""
	}
	var role, name string
	_ = json.Unmarshal(nodes[0].Role.Value, &role)
	_ = json.Unmarshal(nodes[0].Name.Value, &name)
	return role + " " + name
}

// clipboard is what was copied last.
func (p *tab) clipboard() string {
	p.t.Helper()
	return eval[string](p, "navigator.clipboard.readText()")
}

// back is the browser's own button.
var back = chromedp.NavigateBack()
