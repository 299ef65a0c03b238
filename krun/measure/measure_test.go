package measure

import (
	"bytes"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// noise is n reproducible bytes.
func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	var s [32]byte
	binary.LittleEndian.PutUint64(s[:], seed)
	_, _ = rand.NewChaCha8(s).Read(b)
	return b
}

func testInputs() Inputs {
	return Inputs{QBoot: noise(1, 0x10000), Kernel: noise(2, 5*0x10000), KernelLoad: 0x1000000, Initrd: noise(3, 2*0x10000)}
}

// TestKrunfwMeasurement compares with what libkrunfw's own C program,
// utils/krunfw_measurement at e0647fa, prints for a library with these inputs.
func TestKrunfwMeasurement(t *testing.T) {
	for _, k := range []struct {
		cpus, memory   uint
		sev, seves, lD string
	}{
		{1, 512, "5283819fcfc079212420d3c611af0e2a136a3d0df1911626d80d250c9df70589", "c34497b865c57da676805058be50dc6b6811811166f1421b87b15fb3389b3604", "40db4168cd32a829a2eb0ecec4157ae366799deba46937e83cf399fa6606fd9b6f5e89d594a8b1db7f1f208701d82043"},
		{1, 2048, "ad7a05bb4d0305716189656ecafcbc855e9b0ffcb460cd26e528ff00f030a837", "820e43da5dfb36add675b1d60a5dd6588927a0aae7ebb65bf82b9dc45dc87c7b", "7e05776d809b28ae775b4fea9a71ce7b05a7b5dd2a6614f0bb011268d526a6ff2e054c2b22948f44243b2df007a46de9"},
		{1, 3072, "bfc2db1a1a6a4a7db7d88c148c4a41815417d672786d1fa2c965d475a53bdff4", "d49b9a76ca789831a935e2a00a576c392282aa4135f1ee5034e2b554e9f12cb8", "4ea9fd8cd147b9579c1b8b309925c83d895d02f96b16d3bcf1e03a58476d51cfbce899b5376e4c0b3d4232196e335475"},
		{1, 3327, "005061ed80947828cd6acf788ad1322c0029e9d021cf76d7a673dee4e3619fa3", "7be092b55ceb1a481cde9b224514cf70fb295b1183658e9833be1f7d3bcaa0ce", "c692f02b37869af75953e8756a9e1bc688f10c171d9675bcbd6067a295b286167bc5a4ec70f1614684b51741350967fd"},
		{1, 3328, "1fde82f24c129fba5f87ab39037012b84d4920500828f6dd02106c1e142473d7", "c580da13394c2d727ab3890140a610dd4116def8355ffd5bbfb60118ca1c0312", "3688c3f76436820b6d38dab75554e7ec2b0de13c200589ec3977c7241a7fd34683aa99184cbbeb82c4f285388837f026"},
		{1, 3329, "e08f756d29257a0643495893e7dfe36a101d2fb58b24f18c3894d34de4dac305", "0afa5b5dfb24f31f2778802429bce215122c7da60f30f809b1b7719a33fd0e5d", "edf7661557bd70c1808c526a99f2f3f99f8d037870e8311315e9c27dbd3741e3c9fb3e4f1a28ee60969cd1a22a4a7052"},
		{1, 4096, "81a50e1163fb345d37c5b41e2db501aa1b2b43bee59863ee16ae458241fbcb13", "b772459699f49276265ab7aac14b47572f82c7c8d0a36ed5e796d9aa71c16fd4", "7761dc1c52cea37d3d96ca1d400b52cdc640ab5fb93d7fe8cca15ae546d9786e1cc9a8d1a17d15c00b63c936a952d195"},
		{1, 8192, "2b8642a45d72448c4dfb907093466e7faeefeed7cdc5469ba8f61f29579c10ae", "b9a37fef5a26909f05c4fd706e5b16c7b2f3dd4534fc6c4deaf11477cccb92e7", "9408182814f06c6556ead82eba62a38d5105c4b70d45189cb38f05ef972f2a8fa83d5e5e11467099fc8058ca9a543129"},
		{2, 512, "0bf85a8318ce43473bbefcb0e8d7999c83299b53a7b5138fbf91d0a0e4f55dba", "f625799e1a62d2d3fe9573c3ee101d30fe5a9f48f5c816b8dbca25c1b639c59c", "a8ae9369fe48bb6c621fbd68571ec5e8d04bc637fa65b6c8ed934bd556e15e82db8576cf08d14c9415df9ac73959ede6"},
		{2, 2048, "67621bb1708a5fa6c2ebc6c6bc70bf691d572aa421cf69822514c395778a0e9a", "cb5576c24401ac2ac525f281f6d03b2ae6b56eed3b4400183a75f7f39ce24868", "dd6c2a03601ea479662dfcb91c0e8c77c5e2a0977a29f5807b62e63f2259585e583711fc0035ce793b422e286ef0d3ae"},
		{2, 3072, "13c1ca3696a4c50ea7da682a9136979d7a1dd2f4605f57fc0c89d84007a34686", "97c217f5d54ce7db101119880063bd41fe9e024b4f61b7b27809c65198895c63", "42a1a80c14d38dcf658438365aba17c105264a9b5f6c70fb3f629dbc88a7aa8d8dc377c6d17962a613e54918e4888196"},
		{2, 3327, "ab168c8da7f7390513b95b44ba8a26af6a74bed7dca79c3bf19cec1ddac6269b", "c2dc366a82aa3b8aaee05b2c3e92cc7342d1974bc5be743d4c55b15c52fd2d5b", "b7976b9660542790a26c49bd7a5a301feca9b546f6a71cb16d903cb1570494012f766dd85e765ec539edf5ad358a6856"},
		{2, 3328, "cdbac32070c982d4ccc1ec4282b5842526f192a03103d8c8804ae19099ac0d40", "f1fb1192232c81c0a7e69403a4de513202be391a936a90a23e310d2305d66982", "76d849acdbe8ccf910aed6bae8ce934ee0f9b151e7e6b749e21044f5f35813e4c273cd44afe436c0f201a6cf089757e8"},
		{2, 3329, "23cb88e3f26ef5d0f95e1936ba3e18a35c5812eff799ab49287ed697bb6cbf46", "43088b4f88f6e9782b313cf8879fd8bbd753c697629ac69b5f0edf43fffab78d", "b2db5971f50847de0bee7746f68e21c53e9776a32b1b527ad973804d4876b871dfeb99019b9127386d47e967924ef310"},
		{2, 4096, "50b19dbcb5861f939bc7fa0c913a2d6b3320d90588aec16342f8c2b5551f8965", "7194cb776dac36797e4a41276d722eeffdb0f116235517f446e732c5f94f646d", "6a2edc781639fe72efe833cd0fab4642c1a87760bac47fc360ca349d60ae5157aafea92a010261647c92e0e713c91cb0"},
		{2, 8192, "8a2ca8a59cc9f562968d68a8644cc57cd0a15f72086c36fe4fdc38f89ba12856", "77c049358329402f5f67cc4fdf73afe234374c35c4bbd602936c2353ce962c93", "b36f79d6878f4137e97961326cdd903f5753af193134ba0b521c2fd084390673496ff46bcb508d11615015e148a2960d"},
		{4, 512, "2f47a8a40da4b551ac7bde4e3c4de24e1e18481cedec71c7b1aef2de4dcfc249", "015f62cac62bf68851eacb60652286d9bd1ec232e7050b52fed51900dd6293c3", "c1320ed092b8e361ae91b290d096b10ade5e538be1ebad596e2e825084fb87fced50bcfbdce43c56101a6115cc99d5c7"},
		{4, 2048, "9bfab5e18f27ca1b57c953d5207b6fc63dd05b9eb36f4d531c75d0c45b4ba4f9", "3963238125d67cbff8cbc23e8689ce3bc3f7c7d7b6277fdf4e9f6e8aad0dde19", "8193b0ff614ee5b90419bee3e87829a3f5ae0f330db30820f7af44980aec8fd7905070670ac2826337d51847cb40f57c"},
		{4, 3072, "554456b714d1d8331c4530a8e5b33e3cbd6f97ca7159e8118b403552b2696cd9", "3609131b6833ea402a036893a50a4de9e3f9169049f953569c29db24dc263425", "16e431f00eab94315d082427edb761a07aa73aaedb829fe303966ccccee4b89155b813dcaa3cfec3bccc91ea335ecab1"},
		{4, 3327, "7effe5c285d2520f7b86a4c50c449d091ac32330e784a26f1dd2704cc3046681", "cfea25d95ca6d067f18a19e5bc6851b697e0fe06c47ae420d8dbd237449f4254", "bacc3d0291f7342100bb822d5cbaa3710c1650a6cf62060e4a6b228b9daa7ccfa38c1a6e7eb8b1c28bef62c4722c96fb"},
		{4, 3328, "ee1c8d248f698e23f7a347d821f9498344ab9b0df45c1bb22c068cea172e6e2e", "875cc5cf84ddb52f459dd330e6d060f895e5d14b9cbb278c01daabc4ccfc740d", "0fb9153d9ca3de3a470d7cc36488e745c81c1737692bcb214ed823e926dda33ccea8fd499a4e3efe28d7cb314b4beb24"},
		{4, 3329, "4cc39a6085155c007b25439a153c17c36405d1406072c66c4b0e3a7daaafbbff", "e315ce1f8ba407c9b3cc0e1145088787df2f9ba1ec64f0716a368d5a5370c6f3", "d1a8185f908b2bf963e95c80304e4f6c7633c6da1f90e512af0eddb89bcf37645c334bcd2c77276f0e84774e34cf1d8b"},
		{4, 4096, "a4aded2dc4e9ba4b97c4480ac5838f641b36bd810419724c3c531ae9a0465616", "f467f521ae611a74710b76a203fec91b3192c06283f2e6cdc86ee9d33c323a0c", "759349e243da311fdbdf5c3ccb06f4a149cac1a64f8f3ac6aa07497728a2ba43430233dc3edb4fb88db8b97a288ac42f"},
		{4, 8192, "d96f7069d0de340b6abee5984afab146734c57cc055ed12b01fac38c418d3b3d", "af6d33510f636985046a198ae5a6f2d58609e36412c3b100af6911566a58274c", "b2146cdd002c734534baf0963c3c961cd68a10f7ee5434918d2f2aad77151f3517b32ed64f6b899e75a76f9e95afff85"},
	} {
		s := Shape{k.cpus, k.memory}
		for p, want := range map[Profile]string{LegacySEV: k.sev, LegacySEVES: k.seves} {
			got, err := Legacy(p, testInputs(), s)
			if err != nil || hex.EncodeToString(got[:]) != want {
				t.Errorf("%s %+v: %x, want %s (%v)", p, s, got, want, err)
			}
		}
		r, err := Launch(KrunfwTool, testInputs(), s)
		if err != nil || r.Digest.String() != k.lD {
			t.Errorf("%+v: %v, want %s", s, err, k.lD)
		}
	}
}

func TestRegionsDescribeTheInputs(t *testing.T) {
	in := testInputs()
	r, err := Launch(Libkrun116, in, Shape{2, 512})
	if err != nil {
		t.Fatal(err)
	}
	kernel := r.Regions[1]
	if want := kbs.Sum384(in.Kernel); kernel.GPA != 0x1000000 || kernel.SizeBytes != 5*0x10000 || kernel.Type != "normal" || *kernel.SHA384 != want {
		t.Errorf("kernel region is %+v", kernel)
	}
	total := uint64(0)
	for _, region := range r.Regions {
		total += region.SizeBytes
	}
	if want := uint64(0x10000+5*0x10000+2*0x10000) + 4096*(4+7+2); total != want || len(r.Regions) != 10 {
		t.Errorf("%d regions of %d bytes, want 10 of %d", len(r.Regions), total, want)
	}
	text, err := json.Marshal(r)
	if err != nil || !strings.Contains(string(text), `"cpus":2,"memory_mib":512,"digest":"`) {
		t.Errorf("JSON %s (%v)", text, err)
	}
}

// TestEveryInputMatters changes one thing at a time.
func TestEveryInputMatters(t *testing.T) {
	for p, base := range map[Profile]Inputs{
		Libkrun116: testInputs(),
		QEMUDirect: {Kernel: noise(2, 70_001), Initrd: noise(3, 50_001), Cmdline: StopsACPI},
	} {
		shape := Shape{2, 1024}
		want, err := Launch(p, base, shape)
		if err != nil {
			t.Fatal(err)
		}
		for name, edit := range map[string]func(*Inputs, *Shape){
			"cpus":               func(_ *Inputs, s *Shape) { s.CPUs++ },
			"memory":             func(_ *Inputs, s *Shape) { s.MemoryMiB++ },
			"kernel byte":        func(in *Inputs, _ *Shape) { in.Kernel[0] ^= 1 },
			"kernel's last byte": func(in *Inputs, _ *Shape) { in.Kernel[len(in.Kernel)-1] ^= 1 },
			"initrd byte":        func(in *Inputs, _ *Shape) { in.Initrd[len(in.Initrd)-1] ^= 1 },
			"kernel and a page":  func(in *Inputs, _ *Shape) { in.Kernel = append(in.Kernel, make([]byte, 4096)...) },
			"initrd and a page":  func(in *Inputs, _ *Shape) { in.Initrd = append(in.Initrd, make([]byte, 4096)...) },
			"qboot byte": func(in *Inputs, s *Shape) {
				if p == QEMUDirect {
					s.CPUs++
				} else {
					in.QBoot[5] ^= 1
				}
			},
			"load address or command line": func(in *Inputs, _ *Shape) {
				if p == QEMUDirect {
					in.Cmdline = StopsACPI + " "
				} else {
					in.KernelLoad += 4096
				}
			},
			"kernel and a zero, kernel only": func(in *Inputs, s *Shape) {
				if p == QEMUDirect {
					in.Kernel = append(in.Kernel, 0)
				} else {
					s.CPUs--
				}
			},
		} {
			in, s := base, shape
			in.QBoot, in.Kernel, in.Initrd = bytes.Clone(in.QBoot), bytes.Clone(in.Kernel), bytes.Clone(in.Initrd)
			edit(&in, &s)
			got, err := Launch(p, in, s)
			if err != nil || got.Digest == want.Digest {
				t.Errorf("%s: another %s gives the same digest (%v)", p, name, err)
			}
		}
	}
}

func TestRefusals(t *testing.T) {
	for name, edit := range map[string]func(*Inputs, *Shape){
		"no cpu":                 func(_ *Inputs, s *Shape) { s.CPUs = 0 },
		"9 cpus":                 func(_ *Inputs, s *Shape) { s.CPUs = 9 },
		"128 MiB":                func(_ *Inputs, s *Shape) { s.MemoryMiB = 128 },
		"too much memory":        func(_ *Inputs, s *Shape) { s.MemoryMiB = 1<<20 + 1 },
		"no qboot":               func(in *Inputs, _ *Shape) { in.QBoot = nil },
		"long qboot":             func(in *Inputs, _ *Shape) { in.QBoot = make([]byte, 0x20000) },
		"odd kernel":             func(in *Inputs, _ *Shape) { in.Kernel = in.Kernel[:4097] },
		"odd load address":       func(in *Inputs, _ *Shape) { in.KernelLoad++ },
		"load address wraps":     func(in *Inputs, _ *Shape) { in.KernelLoad = 1<<64 - 4096 },
		"load below initrd":      func(in *Inputs, _ *Shape) { in.KernelLoad = 0x900000 },
		"no initrd":              func(in *Inputs, _ *Shape) { in.Initrd = nil },
		"odd initrd":             func(in *Inputs, _ *Shape) { in.Initrd = in.Initrd[:4097] },
		"initrd over 6 MiB":      func(in *Inputs, _ *Shape) { in.Initrd = make([]byte, 6<<20+4096) },
		"command line":           func(in *Inputs, _ *Shape) { in.Cmdline = "quiet" },
		"kernel past the memory": func(in *Inputs, _ *Shape) { in.Kernel = make([]byte, 512<<20) },
	} {
		in, s := testInputs(), Shape{1, 512}
		edit(&in, &s)
		for _, p := range []Profile{KrunfwTool, Libkrun112, Libkrun116} {
			if r, err := Launch(p, in, s); err == nil {
				t.Errorf("%s: %s accepted, %v", name, p, r.Digest)
			}
		}
		if _, err := Legacy(LegacySEVES, in, s); err == nil {
			t.Errorf("%s: accepted for SEV-ES", name)
		}
	}
	in := testInputs()
	in.Initrd = make([]byte, 6<<20)
	if _, err := Launch(Libkrun116, in, Shape{1, 512}); err != nil {
		t.Errorf("an initrd of just 6 MiB: %v", err)
	}
	for _, p := range []Profile{"", "libkrun-1.13", LegacySEV} {
		if _, err := Launch(p, testInputs(), Shape{1, 512}); !errors.Is(err, ErrProfile) {
			t.Errorf("profile %q: %v", p, err)
		}
	}
	if _, err := Launch(LibkrunTDX, testInputs(), Shape{1, 2047}); err == nil {
		t.Error("TDX with under 2 GiB accepted")
	}
	if _, err := Launch(QEMUDirect, testInputs(), Shape{1, 512}); err == nil {
		t.Error("qemu-direct with a qboot accepted")
	}
}

// TestTDX follows the order of operations of the TDX module by hand.
func TestTDX(t *testing.T) {
	in := testInputs()
	h := sha512.New384()
	op := func(name string, gpa uint64) {
		b := make([]byte, 128)
		copy(b, name)
		binary.LittleEndian.PutUint64(b[16:], gpa)
		h.Write(b)
	}
	for page := range uint64(1 << 19) {
		op("MEM.PAGE.ADD", page<<12)
	}
	for i := range in.QBoot {
		gpa := 0xffff0000 + uint64(i)
		if i%4096 == 0 {
			op("MEM.PAGE.ADD", gpa)
		}
		if i%256 == 0 {
			op("MR.EXTEND", gpa)
			h.Write(in.QBoot[i : i+256])
		}
	}
	want := kbs.LaunchDigest(h.Sum(nil))
	// Neither vCPUs nor memory beyond 2 GiB are in it, nor kernel and initrd.
	other := in
	other.Kernel, other.Initrd = noise(8, 4096), noise(9, 4096)
	for _, cpus := range []uint{1, 2, 4} {
		for _, memory := range []uint{2048, 3329, 8192} {
			inputs := in
			if cpus == 4 {
				inputs = other
			}
			if memory != 2048 && cpus != 1 { // half a million page records each
				continue
			}
			r, err := Launch(LibkrunTDX, inputs, Shape{cpus, memory})
			if err != nil || r.Digest != want {
				t.Errorf("%d vCPUs, %d MiB: MRTD differs (%v)", cpus, memory, err)
			}
		}
	}
	if _, err := Launch(LibkrunTDX, in, Shape{1, 512}); err == nil {
		t.Error("a TD with 512 MiB, which libkrun cannot launch")
	}
}

func TestProfiles(t *testing.T) {
	if got := Profiles(kbs.SNP, "qemu-direct"); got != nil {
		t.Errorf("SNP on the simulator's machine: %v", got)
	}
	if got := Profiles(kbs.Sample, "libkrun"); got != nil {
		t.Errorf("sample TEE on libkrun: %v", got)
	}
	if got := Profiles(kbs.SNP, "libkrun"); len(got) != 3 || got[0] != Libkrun116 {
		t.Errorf("SNP on libkrun: %v", got)
	}
}
