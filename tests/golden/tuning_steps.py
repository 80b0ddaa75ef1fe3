"""The training loop that the references of the tuning methods share, and how their numbers are stored."""

import json
import pathlib
import tempfile

import torch
from safetensors.torch import load_file, save_file

DATA = pathlib.Path(__file__).parent / "data"


def parameter_groups(model, settings, decays, scale=lambda name: 1.0):
    """AdamW's groups: the head's own rate, decay where `decays(name, tensor)`, rates multiplied by `scale(name)`."""
    groups = []
    for name, p in model.named_parameters():
        if p.requires_grad:
            rate = settings["head_learning_rate"] if name.startswith("head.") else settings["learning_rate"] * scale(name)
            groups.append(dict(params=[p], lr=rate, weight_decay=settings["weight_decay"] if decays(name, p) else 0.0))
    return groups


def train(model, optimiser, order, loss_of, average=None):
    """Losses and gradient norms (before clipping at 1) of one step for each batch of `order`, at a constant rate.
    `average`: an AveragedModel that follows."""
    losses, norms = [], []
    for batch in order:
        optimiser.zero_grad()
        loss = loss_of(batch)
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)))
        optimiser.step()
        if average is not None:
            average.update_parameters(model)
        losses.append(loss.item())
    return losses, norms


def adapter_files(model, start=None):
    """What PEFT saves: the keys of adapter_config.json that say how the tensors are used, and the tensors. With `start`,
    the directory of the untrained adapter, as an update of the untouched weights."""
    with tempfile.TemporaryDirectory() as out:
        model.save_pretrained(out, **({"path_initial_model_for_weight_conversion": start} if start else {}))
        config = json.loads(pathlib.Path(out, "adapter_config.json").read_text())
        keys = ("peft_type", "r", "lora_alpha", "use_rslora", "use_dora", "bias", "fan_in_fan_out",
                "num_virtual_tokens", "token_dim", "num_transformer_submodules", "num_attention_heads", "num_layers")
        return {k: config[k] for k in keys if k in config}, load_file(f"{out}/adapter_model.safetensors")


def store(name, cases, tensors):
    """data/NAME.json (cases) and data/NAME.safetensors (tensors as "case/tensor")."""
    (DATA / f"{name}.json").write_text(json.dumps(cases, indent=1) + "\n")
    flat = {f"{case}/{k}": v.detach().contiguous().clone() for case, named in tensors.items() for k, v in named.items()}
    save_file(flat, DATA / f"{name}.safetensors")
    for case, values in cases.items():
        print(f"{case:20} {values['losses'][0]:.6f} -> {values['losses'][-1]:.6f}")
