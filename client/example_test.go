package client_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"snowlink/client"
)

// In these examples serviceURL and apiKey are those of a fleet that runs behind Nginx for as long
// as the tests do.

func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c := &client.Client{BaseURL: serviceURL, APIKey: apiKey}

	l, err := c.Create(ctx, client.NewLink{URL: "https://example.com/?a=1"})
	if err != nil {
		fmt.Println(err)
		return
	}
	// l.ShortURL is what visitors get, such as https://sno.example/8h4LRT53E8.

	target, err := c.Follow(ctx, l.Code)
	fmt.Println(target, err)
	// Output: https://example.com/?a=1 <nil>
}

func ExampleClient_Create() {
	c := &client.Client{BaseURL: serviceURL, APIKey: apiKey}
	l, err := c.Create(context.Background(), client.NewLink{
		URL:       "https://example.com/spring",
		Code:      "spring-sale",
		ExpiresAt: time.Date(2099, 4, 30, 22, 0, 0, 0, time.UTC),
		MaxVisits: 1000,
		Tags:      []string{"mail"},
		// Should the answer be lost, the same again makes no second link.
		IdempotencyKey: "order-1138",
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(l.Code, l.URL, l.ExpiresAt.Year(), l.MaxVisits, l.Tags)
	// Output: spring-sale https://example.com/spring 2099 1000 [mail]
}

func ExampleError() {
	ctx := context.Background()
	c := &client.Client{BaseURL: serviceURL, APIKey: apiKey}
	_, err := c.Follow(ctx, "no-such-link")

	if refused, ok := errors.AsType[*client.Error](err); ok {
		switch {
		case refused.Code == "not_found":
			fmt.Println("there is no such link")
		case refused.RetryAfter > 0:
			fmt.Println("try again in", refused.RetryAfter)
		}
	}
	// Output: there is no such link
}

func ExampleClient_CreateAll() {
	c := &client.Client{BaseURL: serviceURL, APIKey: apiKey}
	results, err := c.CreateAll(context.Background(), []client.NewLink{
		{URL: "https://example.com/1", Code: "bulk-1"},
		{URL: "ftp://example.com/2", Code: "bulk-2"},
		{URL: "https://example.com/3", Code: "bulk-3"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, r := range results {
		if refused, ok := errors.AsType[*client.Error](r.Err); ok {
			fmt.Println("refused:", refused.Code)
			continue
		}
		fmt.Println(r.Link.Code, r.Link.URL)
	}
	// Output:
	// bulk-1 https://example.com/1
	// refused: invalid_url
	// bulk-3 https://example.com/3
}

func ExampleClient_List() {
	ctx := context.Background()
	c := &client.Client{BaseURL: serviceURL, APIKey: apiKey}
	for _, code := range []string{"first-page", "second-page"} {
		if _, err := c.Create(ctx, client.NewLink{URL: "https://example.com/", Code: code, Tags: []string{"pages"}}); err != nil {
			fmt.Println(err)
			return
		}
	}
	for l, err := range c.List(ctx, "pages") {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(l.Code)
	}
	// Output:
	// second-page
	// first-page
}

func ExampleClient_Update() {
	ctx := context.Background()
	c := &client.Client{BaseURL: serviceURL, APIKey: apiKey}
	l, err := c.Create(ctx, client.NewLink{URL: "https://example.com/old", Code: "campaign", Title: "Campaign"})
	if err != nil {
		fmt.Println(err)
		return
	}
	if l, err = c.Get(ctx, l.Code); err != nil {
		fmt.Println(err)
		return
	}
	l, err = c.Update(ctx, l.Code, client.Change{
		URL:       new("https://example.com/new"),
		Title:     new(""), // none
		IfVersion: l.Version,
	})
	fmt.Printf("%s %q %v\n", l.URL, l.Title, err)
	// Output: https://example.com/new "" <nil>
}

func ExampleClient_Delete() {
	ctx := context.Background()
	c := &client.Client{BaseURL: serviceURL, APIKey: apiKey}
	if _, err := c.Create(ctx, client.NewLink{URL: "https://example.com/", Code: "mistake"}); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(c.Delete(ctx, "mistake"))

	_, err := c.Get(ctx, "mistake")
	refused, _ := errors.AsType[*client.Error](err)
	fmt.Println(refused.Status, refused.Code)
	// Output:
	// <nil>
	// 410 gone
}
