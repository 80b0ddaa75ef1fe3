"""References of the encoder's tuning methods: PEFT where it has the method, else BertModel in plain PyTorch.

Run:    python tests/golden/encoder_methods_golden.py
Writes: tests/golden/data/encoder_methods.json         of each case the job's settings, losses, gradient norms and the
                                                       probabilities of the test rows
        tests/golden/data/encoder_methods.safetensors  what is trained after the last step, "case/tensor"
Needs:  torch, transformers, peft, safetensors, numpy.

The tiny BERT, its rows, their order and the head's first values are those of encoder_golden.py; the last ten rows also
stand in the test part. Tensors have the names of the files that tailor-tune writes: PEFT's, or the GGUF ones.
"""

import math
import tempfile

import torch
from peft import IA3Config, LoraConfig, get_peft_model
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import BertConfig, BertModel

from counter_rng import Rng
from encoder_golden import BATCH, INITIAL_STREAM, LABELS, LAYER, SEED, TINY, Classifier, batches, tiny_rows, tiny_state
from tuning_steps import adapter_files, parameter_groups, store, train

STEPS, TESTED = 10, 10
CONTRAST_WEIGHT = 0.5  # kContrastWeight of src/tune/contrastive_model.cpp
COMMON = dict(head_learning_rate=1e-2, weight_decay=0.05, batch_size=BATCH, max_steps=STEPS, warmup_ratio=0,
              schedule="constant", dropout=0)
ADAPTER = dict(r=2, alpha=4, target_modules="all-linear")
GGUF = dict(zip(LAYER, ["attn_q", "attn_k", "attn_v", "attn_output", "attn_output_norm", "ffn_up", "ffn_down",
                        "layer_output_norm"]))


def bert():
    encoder = BertModel(BertConfig(**TINY, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0), add_pooling_layer=False)
    encoder.load_state_dict(tiny_state(), strict=True)
    return encoder


def gguf_name(name):
    if name.startswith("embeddings.LayerNorm."):
        return name.replace("embeddings.LayerNorm", "token_embd_norm")
    _, _, layer, rest = name.split(".", 3)
    module, kind = rest.rsplit(".", 1)
    return f"blk.{layer}.{GGUF[module]}.{kind}"


# Low-rank methods: PEFT's own, and only A's first values are ours.

def lora(encoder, **options):
    targets = ["query", "key", "value", "dense"]
    model = get_peft_model(encoder, LoraConfig(r=ADAPTER["r"], lora_alpha=ADAPTER["alpha"], lora_dropout=0.0,
                                               target_modules=targets, **options))
    if "init_lora_weights" in options:
        return model
    rng = Rng(SEED, INITIAL_STREAM)
    for layer in range(TINY["num_hidden_layers"]):
        for module in LAYER:
            part = model.get_submodule(f"base_model.model.encoder.layer.{layer}.{module}")
            if hasattr(part, "lora_A"):
                a = part.lora_A["default"].weight
                values = (2 * rng.uniform(a.numel()) - 1) / math.sqrt(a.shape[1])
                a.data.copy_(torch.tensor(values.reshape(a.shape)))
    return model


# Plain PyTorch.

def only(encoder, trained):
    for name, p in encoder.named_parameters():
        p.requires_grad_(trained(name))
    return encoder


def trained_state(model):
    return {gguf_name(n): p for n, p in model.encoder.named_parameters() if p.requires_grad}


def whole_state(model):
    """All layers, and of the embeddings the norm: words and places that no row has are kept apart (full tuning's own test
    has them)."""
    return {n: p for n, p in ((gguf_name(n), p) for n, p in model.encoder.named_parameters()
                              if "_embeddings." not in n)}


def ia3(encoder):
    """Our places: keys, values, and what the feed-forward part's second layer reads. PEFT's default for BERT names
    "output.dense", which as the end of a path is attention's output layer too; the pattern leaves that out."""
    config = IA3Config(target_modules=r".*\.(self\.key|self\.value|\d+\.output\.dense)",
                       feedforward_modules=r".*\.\d+\.output\.dense")
    return get_peft_model(encoder, config)


def merged_ia3(model):
    changed = [n.removeprefix("base_model.model.").replace(".base_layer", "") for n, _ in model.encoder.named_parameters()
               if "base_layer" in n]
    state = model.encoder.merge_and_unload().state_dict()
    return {gguf_name(n): state[n] for n in changed if not n.endswith(".output.dense.bias")}


class Bottleneck(torch.nn.Module):
    def __init__(self, width, size, activation, scale, rng):
        super().__init__()
        self.down, self.up = torch.nn.Linear(width, size), torch.nn.Linear(size, width)
        self.activation, self.scale = activation, scale
        with torch.no_grad():
            for linear in (self.down, self.up):
                linear.weight.copy_(torch.tensor(0.01 * rng.normal(width * size).reshape(linear.weight.shape)))
                linear.bias.zero_()

    def forward(self, x):
        return self.scale * self.up(self.activation(self.down(x)))


class WithBottleneck(torch.nn.Module):
    """BertSelfOutput or BertOutput with an adapter between the linear layer and the sum: Houlsby et al., figure 2 (their
    published code has GELU). With `parallel` it reads what the feed-forward part reads: He et al., table 6.
    Our Pfeiffer's adapter is Houlsby's second one with ReLU; AdapterHub's reads norm(o + x) instead of o."""

    def __init__(self, output, adapter, parallel):
        super().__init__()
        self.output, self.adapter, self.parallel = output, adapter, parallel

    def forward(self, hidden, residual):
        o = self.output.dense(hidden)
        o = o + self.adapter(residual if self.parallel else o)
        return self.output.LayerNorm(o + residual)


def bottlenecks(encoder, place, size, scale):
    only(encoder, lambda name: place == "houlsby" and "LayerNorm" in name)
    rng = Rng(SEED, INITIAL_STREAM)
    activation = torch.nn.functional.gelu if place == "houlsby" else torch.relu
    for layer in encoder.encoder.layer:
        make = lambda: Bottleneck(TINY["hidden_size"], size, activation, scale, rng)
        if place == "houlsby":
            layer.attention.output = WithBottleneck(layer.attention.output, make(), False)
        layer.output = WithBottleneck(layer.output, make(), place == "parallel")
    return encoder


def bottleneck_state(model):
    found = {}
    for name, p in model.encoder.named_parameters():
        if not p.requires_grad:
            continue
        if ".adapter." in name:
            place = "adapter_attn" if ".attention." in name else "adapter_ffn"
            found[f"blk.{name.split('.')[2]}.{place}.{name.split('.adapter.')[1]}"] = p
        else:
            found[gguf_name(name.replace("output.output.", "output."))] = p
    return found


def matrices(name, p):
    """Weight decay, as ours: on matrices, not on biases, norms, DoRA's lengths and IA3's scales. (transformers' Trainer
    would let the last two decay: it goes by the names of biases and norms.)"""
    return p.ndim == 2 and "ia3_l" not in name


class UnitClassifier(Classifier):
    """The head reads vectors of length 1."""

    def vectors(self, rows):
        head, self.head = self.head, torch.nn.Identity()
        pooled = super().forward(rows)
        self.head = head
        return torch.nn.functional.normalize(pooled, dim=1)

    def forward(self, rows):
        return self.head(self.vectors(rows))


def contrast(z, labels, temperature=0.07):
    """Khosla et al., equation 2, over the rows that have another of their label."""
    others = ~torch.eye(len(z), dtype=torch.bool)
    total, counted = 0.0, 0
    for i in range(len(z)):
        positives = others[i] & (labels == labels[i])
        if positives.any():
            scores = z @ z[i] / temperature
            total = total - (scores[positives] - torch.logsumexp(scores[others[i]], 0)).mean()
            counted += 1
    return total / counted


TEACHER_STREAM = 77  # of a teacher's probabilities, in src/tune/encoder_methods_test.cpp too


def teacher(rows):
    """Probabilities [rows, labels] and which of them are there: every fifth row has none, every fifth other no label."""
    rng = Rng(SEED, TEACHER_STREAM)
    weights = torch.tensor(rng.uniform(rows * LABELS).reshape(rows, LABELS)) ** 3
    return (weights / weights.sum(dim=1, keepdim=True)).float()


def distillation(temperature, alpha):
    """Hinton et al., section 2: soft targets of the teacher at T, times T^2, and the label."""

    def loss(logits, labels, batch, probabilities):
        soft = torch.nn.functional.kl_div(torch.log_softmax(logits / temperature, dim=-1),
                                          torch.softmax(probabilities[batch].log() / temperature, dim=-1),
                                          reduction="none").sum(dim=1) * temperature ** 2
        hard = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        weight = torch.tensor([0.0 if i % 5 == 0 else 1.0 if i % 5 == 1 else alpha for i in batch])
        return (weight * soft + (1 - weight) * hard).mean()

    return loss


def cases():
    """Name -> job's settings, model, what is trained of it at the end, factor of a tensor's rate."""
    saved = lambda model: adapter_files(model.encoder)
    yield "dora", dict(learning_rate=5e-3, lora=ADAPTER), lora(bert(), use_dora=True), saved, None
    yield "rslora", dict(learning_rate=5e-3, lora=ADAPTER), lora(bert(), use_rslora=True), saved, None
    # Not create_loraplus_optimizer, which has no rate for a head: it puts the head's bias among the fast tensors.
    yield "lora-plus", dict(learning_rate=5e-4, lora=ADAPTER), lora(bert()), saved, lambda n: 16 if "lora_B" in n else 1
    with tempfile.TemporaryDirectory() as start:
        model = lora(bert(), init_lora_weights="pissa")
        model.save_pretrained(start)
        yield "pissa", dict(learning_rate=1e-3, lora=ADAPTER), model, lambda m: adapter_files(m.encoder, start), None
    yield "ia3", dict(learning_rate=1e-2), ia3(bert()), merged_ia3, None
    yield "bitfit", dict(learning_rate=5e-3), only(bert(), lambda n: n.endswith("bias")), trained_state, None
    yield "layernorm", dict(learning_rate=5e-3), only(bert(), lambda n: "LayerNorm" in n), trained_state, None
    yield ("upper-layers", dict(learning_rate=1e-3, upper_layers=1), only(bert(), lambda n: n.startswith("encoder.layer.1.")),
           trained_state, None)
    for place, scale in (("houlsby", 1), ("pfeiffer", 1), ("parallel", 4)):
        settings = dict(learning_rate=5e-3, adapter=dict(size=8))  # the scale is the method's own
        yield f"adapter-{place}", settings, bottlenecks(bert(), place, 8, scale), bottleneck_state, None
    yield "full-ema", dict(learning_rate=1e-3, ema_decay=0.8), bert(), whole_state, None
    # Vectors of length 1, as the head's file asks; the contrast has all rows in one pass, so that no row comes along.
    yield "full-unit", dict(learning_rate=1e-3), bert(), whole_state, None
    yield ("contrastive", dict(learning_rate=1e-3, batch_size=len(tiny_rows()), hard_negatives=0, hidden_dropout=0,
                               label_smoothing=0.1), bert(), whole_state, None)
    yield ("distill", dict(learning_rate=1e-3, distill=dict(temperature=3, alpha=0.6)), bert(), whole_state, None)


def main():
    rows, results, tensors = tiny_rows(), {}, {}
    answers = teacher(len(rows))
    tested = [rows[len(rows) - 1 - i][0] for i in range(TESTED)]
    for name, own, encoder, state, scale in cases():
        settings = COMMON | own
        unit = name in ("full-unit", "contrastive")
        model = (UnitClassifier if unit else Classifier)(encoder, TINY["hidden_size"], LABELS, SEED)
        steps = batches(len(rows), SEED, settings["batch_size"], STEPS)

        def loss_of(batch):
            labels = torch.tensor([rows[i][1] for i in batch])
            if name == "distill":
                return distillation(**own["distill"])(model([rows[i][0] for i in batch]), labels, batch, answers)
            if name == "contrastive":
                z = model.vectors([rows[i][0] for i in batch])
                head = torch.nn.functional.cross_entropy(model.head(z), labels, label_smoothing=own["label_smoothing"])
                return CONTRAST_WEIGHT * contrast(z, labels) + head
            return torch.nn.functional.cross_entropy(model([rows[i][0] for i in batch]), labels)

        optimiser = torch.optim.AdamW(parameter_groups(model, settings, matrices, scale or (lambda n: 1)))
        average = None
        if "ema_decay" in own:
            average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(own["ema_decay"]))
        losses, norms = train(model, optimiser, steps, loss_of, average)
        if average is not None:
            model = average.module
        with torch.no_grad():
            probabilities = torch.softmax(model(tested), dim=-1)
        results[name] = {"settings": settings, "losses": losses, "gradient_norms": norms,
                         "probabilities": probabilities.flatten().tolist()}
        trained = state(model)
        if isinstance(trained, tuple):
            results[name]["adapter_config"], trained = trained
        tensors[name] = {"head.weight": model.head.weight, "head.bias": model.head.bias, **trained}
    store("encoder_methods", results, tensors)


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_num_threads(1)
    main()
