"""Writes the model folder from a checkpoint: `python3 tools/train/export.py /tmp/train/last.pt models/mixquant-agent`.

The averaged weights are rounded to BF16 (nearest even); the tokenizer files already in the folder are kept.
"""
import argparse
import json
import os
import struct

import torch

import model as qwen3
import template
import tokenizer as bpe


def write_safetensors(path, tensors):
    """tensors: name -> (dtype name, shape, bytes). Names sorted, header padded to a multiple of 8 bytes."""
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name in sorted(tensors):
        dtype, shape, data = tensors[name]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path + ".part", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in sorted(tensors):
            file.write(tensors[name][2])
    os.replace(path + ".part", path)


def read_safetensors(path):
    with open(path, "rb") as file:
        size = struct.unpack("<Q", file.read(8))[0]
        header, data = json.loads(file.read(size)), file.read()
    out = {}
    for name, entry in header.items():
        if name != "__metadata__":
            a, b = entry["data_offsets"]
            raw = torch.frombuffer(bytearray(data[a:b]), dtype=torch.bfloat16)
            out[name] = raw.view(entry["shape"]).float()
    return out


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=2)
        file.write("\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("folder")
    parser.add_argument("--last", action="store_true", help="the last weights instead of their average")
    args = parser.parse_args()
    got = torch.load(args.checkpoint)
    weights = got["model" if args.last else "average"]
    tok = bpe.Tokenizer(args.folder)
    end, pad = tok.special["<|im_end|>"], tok.special["<|endoftext|>"]
    tensors = {n: ("BF16", list(w.shape), w.to(torch.bfloat16).view(torch.int16).numpy().tobytes())
               for n, w in weights.items()}
    write_safetensors(os.path.join(args.folder, "model.safetensors"), tensors)
    write_json(os.path.join(args.folder, "config.json"), dict(qwen3.CONFIG, eos_token_id=end))
    write_json(os.path.join(args.folder, "generation_config.json"),
               {"do_sample": False, "eos_token_id": [end, pad], "pad_token_id": pad, "transformers_version": "4.51.0"})
    template.write(args.folder)
    print(f"step {got['step']}: {sum(len(t[2]) for t in tensors.values())} bytes of weights")


if __name__ == "__main__":
    main()
