// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package token_test

import (
	"crypto/sha256"
	"regexp"
	"strings"
	"testing"

	"squirrel.dev/apikey-operator/api/token"
)

func TestNew_MintsDistinctTokensOfTheDocumentedFormat(t *testing.T) {
	format := regexp.MustCompile(`^sq_[A-Za-z0-9_-]{43}$`)
	seen := map[string]bool{}
	for range 1000 {
		minted := token.New()
		if !format.MatchString(minted) || len(minted) != token.Length || token.Length != 46 {
			t.Fatalf("New() returned a token of another format, with %d characters", len(minted))
		}
		if seen[minted] {
			t.Fatal("New() returned the same token twice")
		}
		seen[minted] = true
	}
}

func TestHash_IsTheSHA256OfTheWholeToken(t *testing.T) {
	// printf %s sq_KnIrtn1btDx-LXyyjI11-ypUrcJpQmCTm09muyQIeG8 | sha256sum
	const want = "sha256:a8720d49488c4443c7264f039a5d4d2053ef200feec7638f86bcc7587109e272"
	if got := token.Hash(exampleToken); got != want {
		t.Errorf("Hash() = %q, want %q", got, want)
	}
	if got := token.Hash(""); got != "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" {
		t.Errorf("Hash of the empty string = %q", got)
	}
}

func TestHint(t *testing.T) {
	for input, want := range map[string]string{
		"sq_KnIrtn1btDx-LXyyjI11-ypUrcJpQmCTm09muyQIeG8": "sq_KnIr",
		"12345678901234": "1234567",
		"123456789":      "1234",
		"1":              "",
		"":               "",
	} {
		if got := token.Hint(input); got != want {
			t.Errorf("Hint(%q) = %q, want %q", input, got, want)
		}
	}
}

func TestParseHash_RejectsOtherForms(t *testing.T) {
	const message = `a token hash is "sha256:" followed by 64 lower-case hexadecimal digits`
	digits := strings.Repeat("0a", 32)
	for _, input := range []string{"", "sha256:", digits, "sha512:" + digits, "sha256:" + digits[1:], "sha256:" + digits + "00",
		"sha256:" + strings.ToUpper(digits), "sha256:" + digits[:63] + "g", "SHA256:" + digits, " sha256:" + digits} {
		if _, err := token.ParseHash(input); err == nil || err.Error() != message {
			t.Errorf("ParseHash(%q) = %v, want %q", input, err, message)
		}
	}
}

func TestSum_DoesNotAllocate(t *testing.T) {
	for _, length := range []int{1, 32, 33, token.Length, 64, 65, 512, 10_000} {
		long := strings.Repeat("x", length)
		if allocations := testing.AllocsPerRun(100, func() { token.Sum(long) }); allocations != 0 {
			t.Errorf("Sum of %d bytes allocates %v times", length, allocations)
		}
	}
}

func TestSum_HashesTokensOfAnyLength(t *testing.T) {
	for length := range 300 {
		text := strings.Repeat("x", length)
		if got, want := token.Sum(text), token.Digest(sha256.Sum256([]byte(text))); got != want || !got.Equal(&want) {
			t.Errorf("Sum of %d bytes is %s, want %s", length, got, want)
		}
	}
}

func FuzzParseHash(f *testing.F) {
	f.Add(token.Hash("a"))
	f.Add("sha256:" + strings.Repeat("F", 64))
	f.Add("sha256:é")
	f.Fuzz(func(t *testing.T, input string) {
		digest, err := token.ParseHash(input)
		if err == nil && digest.String() != input {
			t.Errorf("ParseHash(%q) returned the digest of another hash: %q", input, digest)
		}
	})
}

func FuzzHash(f *testing.F) {
	f.Add("sq_KnIrtn1btDx-LXyyjI11-ypUrcJpQmCTm09muyQIeG8")
	f.Add(strings.Repeat("x", 600))
	f.Fuzz(func(t *testing.T, input string) {
		digest, err := token.ParseHash(token.Hash(input))
		if err != nil || digest != token.Sum(input) {
			t.Errorf("ParseHash(Hash(%q)) = %v, %v", input, digest, err)
		}
		if hint := token.Hint(input); !strings.HasPrefix(input, hint) || len(hint) > 7 || len(hint) > len(input)/2 {
			t.Errorf("Hint(%q) = %q", input, hint)
		}
	})
}
