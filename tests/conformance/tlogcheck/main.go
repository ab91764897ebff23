// Checks an audit log and proofs with golang.org/x/mod/sumdb alone: nothing of ours takes part.
//
//	tlogcheck proof VKEY ENTRY PROOF    ENTRY is in the log, as the tlog-proof says
//	tlogcheck log VKEY FOLDER OLD       tiles lead to the checkpoint's root; the tree of OLD entries is its beginning
package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func check(err error) {
	if err != nil {
		fmt.Println("refused:", err)
		os.Exit(1)
	}
}

func hash(text string) (h tlog.Hash) {
	data, err := base64.StdEncoding.DecodeString(text)
	check(err)
	if len(data) != tlog.HashSize {
		check(fmt.Errorf("a hash of %d bytes", len(data)))
	}
	copy(h[:], data)
	return h
}

// checkpoint opens a checkpoint with note.Open and returns its size and root.
func checkpoint(vkey string, data []byte) (int64, tlog.Hash) {
	verifier, err := note.NewVerifier(vkey)
	check(err)
	opened, err := note.Open(data, note.VerifierList(verifier))
	check(err)
	lines := strings.Split(opened.Text, "\n")
	if len(lines) < 4 || lines[0] != verifier.Name() {
		check(fmt.Errorf("no checkpoint of %s", verifier.Name()))
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	check(err)
	return size, hash(lines[2])
}

func proof(vkey string, entry, data []byte) {
	head, note, found := bytes.Cut(data, []byte("\n\n"))
	lines := strings.Split(string(head), "\n")
	if !found || lines[0] != "c2sp.org/tlog-proof@v1" {
		check(fmt.Errorf("no tlog-proof"))
	}
	lines = lines[1:]
	if strings.HasPrefix(lines[0], "extra ") {
		lines = lines[1:]
	}
	index, err := strconv.ParseInt(strings.TrimPrefix(lines[0], "index "), 10, 64)
	check(err)
	var record tlog.RecordProof
	for _, line := range lines[1:] {
		record = append(record, hash(line))
	}
	size, root := checkpoint(vkey, note)
	check(tlog.CheckRecord(record, size, root, index, tlog.RecordHash(entry)))
}

type folder string

func (folder) Height() int                  { return 8 }
func (folder) SaveTiles([]tlog.Tile, [][]byte) {}
func (f folder) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range tiles {
		// The Go checksum database has the height in its paths, tlog-tiles has not.
		path := strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
		data, err := os.ReadFile(filepath.Join(string(f), path))
		if err != nil {
			return nil, err
		}
		all = append(all, data)
	}
	return all, nil
}

func log(vkey, path string, old int64) {
	data, err := os.ReadFile(filepath.Join(path, "checkpoint"))
	check(err)
	size, root := checkpoint(vkey, data)
	reader := tlog.TileHashReader(tlog.Tree{N: size, Hash: root}, folder(path))
	computed, err := tlog.TreeHash(size, reader)
	check(err)
	if computed != root {
		check(fmt.Errorf("the tiles lead to another root"))
	}
	before, err := tlog.TreeHash(old, reader)
	check(err)
	tree, err := tlog.ProveTree(size, old, reader)
	check(err)
	check(tlog.CheckTree(tree, size, root, old, before))
	fmt.Println(before)
}

func main() {
	arguments := os.Args[1:]
	switch arguments[0] {
	case "proof":
		entry, err := os.ReadFile(arguments[2])
		check(err)
		data, err := os.ReadFile(arguments[3])
		check(err)
		proof(arguments[1], entry, data)
	case "log":
		old, err := strconv.ParseInt(arguments[3], 10, 64)
		check(err)
		log(arguments[1], arguments[2], old)
	}
	fmt.Println("ok")
}
