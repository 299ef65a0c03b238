// Mutation takes one security condition after the other out of the program
// and looks whether its tests notice. It never changes the tree it works on.
//
//	go run ./tests/mutation                  # all; goes on where it stopped
//	go run ./tests/mutation -some 10 -seed X # ten, chosen by the seed
//	go run ./tests/mutation -only V20,K21
package main

import (
	"context"
	"flag"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "mutation:", err)
		os.Exit(1)
	}
}

// listDir is where the lists are, from the module's root.
const listDir = "tests/mutation/list"

func run() error {
	some := flag.Int("some", 0, "judge this `NUMBER` of mutants, chosen by the seed, whatever is known of them")
	seed := flag.String("seed", "", "`TEXT` that chooses them; default: the commit")
	only := flag.String("only", "", "judge these `IDS`, separated by commas, whatever is known of them")
	state := flag.String("state", ".cache/mutation.json", "`FILE` that keeps what was judged")
	record := flag.Bool("record", false, "append the result to "+resultsFile)
	flag.Parse()
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	all, err := readList(filepath.Join(root, listDir))
	if err != nil {
		return err
	}
	excused, err := readSurvivors(filepath.Join(root, survivorsFile), all)
	if err != nil {
		return err
	}
	w, err := newWork(root, *state)
	if err != nil {
		return err
	}
	defer os.RemoveAll(w.judge.tmp)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	chosen, again := all, false
	switch {
	case *only != "":
		chosen, again = named(all, strings.Split(*only, ",")), true
	case *some > 0:
		if *seed == "" {
			*seed = w.commit
		}
		fmt.Printf("seed %s\n", *seed)
		chosen, again = choose(all, *some, *seed), true
	}
	if err := w.all(ctx, chosen, again); err != nil {
		return err
	}
	s := summarize(chosen, w.known, w.commit, excused)
	fmt.Println(s)
	if *record && len(chosen) == len(all) {
		if err := s.append(filepath.Join(root, resultsFile)); err != nil {
			return err
		}
	}
	return s.problem()
}

// choose draws n mutants: the same seed and list, the same mutants.
func choose(all []mutant, n int, seed string) []mutant {
	h := fnv.New64a()
	h.Write([]byte(seed))
	r := rand.New(rand.NewPCG(h.Sum64(), 0))
	var list []mutant
	for _, i := range r.Perm(len(all))[:min(n, len(all))] {
		list = append(list, all[i])
	}
	return list
}

func named(all []mutant, ids []string) []mutant {
	return slices.DeleteFunc(slices.Clone(all), func(m mutant) bool { return !slices.Contains(ids, m.id) })
}
