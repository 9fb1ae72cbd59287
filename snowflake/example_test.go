package snowflake_test

import (
	"fmt"

	"snowlink/snowflake"
)

func Example() {
	g, err := snowflake.NewGenerator(3)
	if err != nil {
		fmt.Println(err)
		return
	}
	id := g.Next()
	code := snowflake.Encode(id) // such as "43RwJq9RSq"

	back, err := snowflake.Decode(code)
	fmt.Println(back == id, err, back.Node())
	// Output: true <nil> 3
}

func ExampleDecode() {
	id, err := snowflake.Decode("43RwJq9RSq")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(id, id.Time().Format("2006-01-02 15:04:05.000"), id.Node())

	_, err = snowflake.Decode("favicon.ico")
	fmt.Println(err)
	// Output:
	// 54901762686984192 2026-06-01 12:00:00.250 2
	// invalid code
}
