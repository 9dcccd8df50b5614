// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package token makes and hashes API key tokens.
package token

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"unsafe"
)

const (
	// Prefix starts every minted token, so that people and secret scanners recognise one.
	Prefix = "sq_"

	// Length of a minted token in bytes: the prefix, and 32 random bytes as unpadded base64url (RFC 4648, section 5).
	Length = len(Prefix) + 43

	hashPrefix = "sha256:"
	hintLength = 7
	entropy    = 32
)

// Digest is the SHA-256 of a whole token. A token has 256 random bits, so a fast hash is enough: there is nothing to guess.
type Digest [sha256.Size]byte

// New mints a token: "sq_" and 32 bytes of the system's random source as base64url without padding, 46 characters.
func New() string {
	var random [entropy]byte
	rand.Read(random[:]) // never fails: the program crashes when the system's source is broken
	return Prefix + base64.RawURLEncoding.EncodeToString(random[:])
}

// Sum returns the digest of a token, without allocating and without copying the token.
func Sum(token string) Digest {
	return sha256.Sum256(unsafe.Slice(unsafe.StringData(token), len(token))) //nolint:gosec // Sum256 only reads
}

// Hash returns the digest of a token as it is recorded: "sha256:" and 64 lower-case hexadecimal digits.
func Hash(token string) string {
	return Sum(token).String()
}

// Equal compares digests in a time that does not depend on what is in them, as [crypto/subtle.ConstantTimeCompare] does byte by byte.
func (d *Digest) Equal(other *Digest) bool {
	var difference uint64
	for i := 0; i < len(d); i += 8 {
		difference |= binary.NativeEndian.Uint64(d[i:]) ^ binary.NativeEndian.Uint64(other[i:])
	}
	return difference == 0
}

// String returns the digest as it is recorded: "sha256:" and 64 lower-case hexadecimal digits.
func (d Digest) String() string {
	return hashPrefix + hex.EncodeToString(d[:])
}

// ParseHash reads what [Digest.String] wrote. Any other form is an error; the error does not repeat the input.
func ParseHash(hash string) (Digest, error) {
	var digest Digest
	digits, ok := strings.CutPrefix(hash, hashPrefix)
	if !ok || len(digits) != hex.EncodedLen(len(digest)) || strings.ToLower(digits) != digits {
		return digest, fmt.Errorf("a token hash is %q followed by %d lower-case hexadecimal digits", hashPrefix, hex.EncodedLen(len(digest)))
	}
	if _, err := hex.Decode(digest[:], []byte(digits)); err != nil {
		return Digest{}, fmt.Errorf("a token hash is %q followed by %d lower-case hexadecimal digits", hashPrefix, hex.EncodedLen(len(digest)))
	}
	return digest, nil
}

// Hint returns the first 7 characters of a token, to recognise it by; of a token shorter than twice that, as much as half of it.
func Hint(token string) string {
	return token[:min(hintLength, len(token)/2)]
}
