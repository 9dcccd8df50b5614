// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	// digits is the length of a key: 256 random bits in hexadecimal.
	digits = 64

	// othersMode are the permissions of users other than the owner and the group of a file.
	othersMode fs.FileMode = 0o007
)

// advice ends the errors about a missing or invalid key file.
const advice = "write %[1]d hexadecimal digits to it, (umask 077; openssl rand -hex %[2]d > %[3]s), " +
	"or name another file with --api-key-file"

// loadOrCreate returns the key in a file. If the file does not exist, it creates it with a new key. Processes that do so at the same time
// all return the same key.
func loadOrCreate(path string) (key string, err error) {
	key, err = load(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if err := create(path); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("the key file %s does not exist and cannot be created (%w): allow user %d to write to its directory, or %s",
			path, err, os.Geteuid(), adviceFor(path))
	}
	key, err = load(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("the key file %s is a symbolic link to a file that does not exist: remove it, or %s", path, adviceFor(path))
	}
	return key, err
}

func adviceFor(path string) string { return fmt.Sprintf(advice, digits, digits/2, path) }

// load returns the key in an existing file. Its errors do not contain the content of the file.
func load(path string) (key string, err error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // opening a pipe must not block
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", err
	case err != nil:
		return "", fmt.Errorf("the key file cannot be read (%w): allow user %d to read it, or name another file with --api-key-file",
			err, os.Geteuid())
	}
	defer func() { _ = file.Close() }()
	if err := checkMode(file); err != nil {
		return "", err
	}
	content, err := io.ReadAll(io.LimitReader(file, 2*digits))
	if err != nil {
		return "", fmt.Errorf("the key file cannot be read: %w", err)
	}
	return parse(path, string(content))
}

// checkMode refuses files that are not regular, and files that other users than the owner and the group may read or write. Volumes with an
// fsGroup give the group the permissions of the owner.
func checkMode(file *os.File) error {
	info, err := file.Stat()
	switch {
	case err != nil:
		return fmt.Errorf("the mode of the key file cannot be read: %w", err)
	case info.IsDir():
		return fmt.Errorf("the key file %s is a directory: remove it, or name a file with --api-key-file", file.Name())
	case !info.Mode().IsRegular():
		return fmt.Errorf("the key file %s is not a regular file: remove it, or name another file with --api-key-file", file.Name())
	case info.Mode().Perm()&othersMode != 0:
		return fmt.Errorf("all users may read or write the key file %s (mode %04o), so its key is not secret: delete the file, so that the "+
			"next start generates a new key, or chmod 600 it if no other user has read it yet. Mount a Secret with defaultMode: 0400 and "+
			"set the fsGroup of the pod, so that only the pod can read it", file.Name(), info.Mode().Perm())
	}
	return nil
}

// parse returns the key in the content of a file: the digits, and an optional end of line.
func parse(path, content string) (key string, err error) {
	key = strings.TrimSuffix(strings.TrimSuffix(content, "\n"), "\r")
	problem := ""
	if _, err := hex.DecodeString(key); len(key) < digits {
		problem = fmt.Sprintf("is too short: it has %d characters, and a key has %d hexadecimal digits", len(key), digits)
	} else if err != nil || len(key) > digits {
		problem = fmt.Sprintf("does not consist of %d hexadecimal digits", digits)
	}
	if problem != "" {
		return "", fmt.Errorf("the key file %s %s. Delete it, so that the next start generates a new key, or %s", path, problem, adviceFor(path))
	}
	return key, nil
}

// create writes a new key to a file that only its owner can read. The file appears with its whole content. An existing file is not
// replaced: the error is then fs.ErrExist.
func create(path string) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	draft, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // of mode 0600
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(draft.Name())) }()
	_, err = io.WriteString(draft, newKey()+"\n")
	if err := errors.Join(err, draft.Sync(), draft.Close()); err != nil {
		return err
	}
	if err := os.Link(draft.Name(), path); err != nil { // a rename would replace an existing file
		return err
	}
	return syncDirectory(filepath.Dir(path))
}

func newKey() string {
	var random [digits / 2]byte
	rand.Read(random[:]) // never fails
	return hex.EncodeToString(random[:])
}

// syncDirectory flushes a new name in a directory, so that it survives a crash of the machine.
func syncDirectory(path string) error {
	directory, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(directory.Sync(), directory.Close())
}
