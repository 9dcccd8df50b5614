// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package token_test

import (
	"fmt"

	"squirrel.dev/apikey-operator/api/token"
)

// The token of the examples. Never use it: it is public.
const exampleToken = "sq_KnIrtn1btDx-LXyyjI11-ypUrcJpQmCTm09muyQIeG8"

func ExampleNew() {
	minted := token.New()
	fmt.Println(len(minted), minted[:len(token.Prefix)])
	// Output: 46 sq_
}

// Hash returns the value of spec.tokenHash that imports a token.
func ExampleHash() {
	fmt.Println(token.Hash(exampleToken))
	// Output: sha256:a8720d49488c4443c7264f039a5d4d2053ef200feec7638f86bcc7587109e272
}

// Hint returns the value of spec.tokenHint.
func ExampleHint() {
	fmt.Println(token.Hint(exampleToken))
	// Output: sq_KnIr
}

// Compare a token with a recorded hash.
func ExampleDigest_Equal() {
	recorded, err := token.ParseHash("sha256:a8720d49488c4443c7264f039a5d4d2053ef200feec7638f86bcc7587109e272")
	if err != nil {
		fmt.Println(err)
		return
	}
	presented := token.Sum(exampleToken)
	fmt.Println(presented.Equal(&recorded))
	// Output: true
}

func ExampleParseHash() {
	_, err := token.ParseHash("a8720d49488c4443c7264f039a5d4d2053ef200feec7638f86bcc7587109e272")
	fmt.Println(err)
	// Output: a token hash is "sha256:" followed by 64 lower-case hexadecimal digits
}
