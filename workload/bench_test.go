package workload

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ccrun/ccrun/workload/imagetest"
)

// benchLayers writes an image of three layers, 192 MiB of half compressible
// files between 1 KiB and 1 MiB, and returns its size.
func benchLayers(b *testing.B, dir string, compress bool) int64 {
	m := &imagetest.Image{Config: imagetest.App(b).Config}
	m.Config.Config.User = "1000:1000"
	m.Config.RootFS.DiffIDs = nil
	noise := make([]byte, 1<<20)
	if _, err := rand.Read(noise); err != nil {
		b.Fatal(err)
	}
	for i := range len(noise) / 64 {
		copy(noise[i*64+32:(i+1)*64], "0123456789abcdef0123456789abcdef")
	}
	var total int64
	for l := range 3 {
		var files []imagetest.File
		for n, i := 0, 0; n < 64<<20; i++ {
			size := 1 << (10 + i%11)
			files = append(files, imagetest.File{Name: fmt.Sprintf("l%d/d%d/f%d", l, i%64, i), Content: string(noise[i%4096 : i%4096+size-i%4096*size>>20])})
			n += size
		}
		layer := imagetest.Tar(b, files...)
		total += int64(len(layer))
		blob, media := layer, imgspec.MediaTypeImageLayer
		if compress {
			var z bytes.Buffer
			w := gzip.NewWriter(&z)
			if _, err := w.Write(layer); err != nil || w.Close() != nil {
				b.Fatal(err)
			}
			blob, media = z.Bytes(), imgspec.MediaTypeImageLayerGzip
		}
		m.Add(media, layer, blob)
	}
	m.WriteLayout(b, dir)
	return total
}

// BenchmarkBuild is a whole build from one image layout to another: bytes are
// those of the uncompressed layers. CCRUN_BENCH_SOURCE names another source.
func BenchmarkBuild(b *testing.B) {
	agent, err := os.ReadFile(os.Getenv("CCRUN_BENCH_AGENT"))
	if err != nil {
		agent = stub()
	}
	for _, kind := range []string{"plain", "gzip"} {
		b.Run(kind, func(b *testing.B) {
			o := testOptions(b, &fakeServer{})
			o.SizeBytes, o.Agent = 0, agent
			if o.Source = os.Getenv("CCRUN_BENCH_SOURCE"); o.Source == "" {
				dir := b.TempDir()
				b.SetBytes(benchLayers(b, dir, kind == "gzip"))
				o.Source = "oci:" + dir
			}
			b.ReportAllocs()
			for b.Loop() {
				out := filepath.Join(o.TempDir, "out")
				o.Destination = "oci:" + out + ":app"
				if _, err := Build(b.Context(), o); err != nil {
					b.Fatal(err)
				}
				if err := os.RemoveAll(out); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
