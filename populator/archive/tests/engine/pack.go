// Packs a tree with Go's archive/tar: pack FORMAT ROOT, where FORMAT is pax or gnu.
package main

import (
	"archive/tar"
	"io"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	formats := map[string]tar.Format{"pax": tar.FormatPAX, "gnu": tar.FormatGNU}
	format, root := formats[os.Args[1]], os.Args[2]
	packed := tar.NewWriter(os.Stdout)
	first := map[uint64]string{}
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return pack(packed, format, root, path, first)
	})
	if err == nil {
		err = packed.Close()
	}
	if err != nil {
		log.Fatal(err)
	}
}

// Writes one entry; first knows the name under which each inode is already in the archive.
func pack(packed *tar.Writer, format tar.Format, root, path string, first map[uint64]string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	target := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		if target, err = os.Readlink(path); err != nil {
			return err
		}
	}
	header, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return err
	}
	name, err := filepath.Rel(root, path)
	if err != nil {
		return err
	}
	header.Format, header.Name = format, name
	header.Uname, header.Gname = "", ""
	header.AccessTime, header.ChangeTime = time.Time{}, time.Time{}
	if header.Typeflag == tar.TypeDir {
		header.Name += "/"
	}
	inode := info.Sys().(*syscall.Stat_t).Ino
	if earlier, known := first[inode]; known && header.Typeflag != tar.TypeDir {
		header.Typeflag, header.Linkname, header.Size = tar.TypeLink, earlier, 0
	} else {
		first[inode] = name
	}
	if format == tar.FormatPAX && header.Typeflag != tar.TypeLink {
		if header.PAXRecords, err = attributes(path); err != nil {
			return err
		}
	}
	if err := packed.WriteHeader(header); err != nil {
		return err
	}
	if header.Typeflag != tar.TypeReg {
		return nil
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = io.Copy(packed, file)
	return err
}

// Attributes as records. Of links Go can ask for none.
func attributes(path string) (map[string]string, error) {
	records := map[string]string{}
	if info, err := os.Lstat(path); err != nil || !(info.Mode().IsRegular() || info.IsDir()) {
		return records, err
	}
	names := make([]byte, 64<<10)
	length, err := syscall.Listxattr(path, names)
	if err != nil {
		return nil, err
	}
	for _, name := range strings.Split(strings.TrimRight(string(names[:length]), "\x00"), "\x00") {
		value := make([]byte, 64<<10)
		if name == "" {
			continue
		}
		length, err := syscall.Getxattr(path, name, value)
		if err != nil {
			return nil, err
		}
		records["SCHILY.xattr."+name] = string(value[:length])
	}
	return records, nil
}
