"""References of encoder families and objectives: transformers' own models and losses on tiny random weights.

Run:    python tests/golden/encoder_objectives_golden.py
Writes: tests/golden/data/encoder_objectives.json         of each case family, task, the job's settings, the untouched
                                                          model's scores of the test rows, losses, gradient norms, and
                                                          the answers of the test rows after the last step
        tests/golden/data/encoder_objectives.safetensors  the first step's gradients, "case/tensor" by transformers' name
        tests/golden/data/encoder_targets.json            of regular expressions as target_modules, the modules that PEFT
                                                          adapts, by family
Needs:  torch, transformers, peft, safetensors, numpy.

Weights, rows, targets and the head's first values come from counter_rng.py, as src/tune/encoder_objectives_test.cpp
makes them. Rows are those of encoder_golden.py with every id one higher, so that RoBERTa's padding token (1) is none of
them. The head reads the mean over a row's tokens; the loss is the one that transformers' models for sequence
classification compute for this problem_type. The cases for tokens and spans are transformers' own models for token
classification and question answering, with their losses. ModernBERT's windows are shorter than most rows, and its rows
are computed one by one, without padding; its IA3 and its bottleneck adapters are hooks on transformers' modules, as
PEFT's IA3 scales whole layers (here queries, keys and values are one) and has no bottlenecks.
"""

import json
import math

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import (BertConfig, BertForQuestionAnswering, BertForTokenClassification, BertModel, DistilBertConfig,
                          DistilBertModel, ModernBertConfig, ModernBertModel, RobertaConfig, RobertaForTokenClassification,
                          RobertaModel)
from transformers.loss.loss_utils import ForSequenceClassificationLoss

from counter_rng import Rng
from encoder_golden import BATCH, HEAD_STREAM, INITIAL_STREAM, LABELS, SEED, batches, tiny_rows
from tuning_steps import DATA, parameter_groups, store, train

STEPS, TESTED, LABEL_SETS, TAGS = 10, 10, 4, 5
WIDTH, INNER, LAYERS, HEADS, WORDS, PLACES = 16, 32, 2, 2, 100, 40
COMMON = dict(learning_rate=5e-3, head_learning_rate=1e-2, weight_decay=0.05, batch_size=BATCH, max_steps=STEPS,
              warmup_ratio=0, schedule="constant", dropout=0)
BERT = ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
        "attention.output.LayerNorm", "intermediate.dense", "output.dense", "output.LayerNorm"]
DISTILBERT = ["attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin", "sa_layer_norm", "ffn.lin1",
              "ffn.lin2", "output_layer_norm"]
MODERNBERT = ["attn.Wqkv", "attn.Wo", "mlp.Wi", "mlp.Wo"]  # linear ones
MODERN_LAYERS, WINDOW = 4, 4  # layers 0 and 3 see whole rows, 1 and 2 two tokens to either side
# Modules of a layer, their prefix, rows of the position table before a text's first, rows of token types.
FAMILIES = {"bert": (BERT, "encoder.layer", 0, 2), "distilbert": (DISTILBERT, "transformer.layer", 0, 0),
            "roberta": (BERT, "encoder.layer", 2, 1), "modernbert": (MODERNBERT, "layers", 0, 0)}


def state_of(family):
    """All tensors in a fixed order; tensor i comes from Rng(1, i)."""
    modules, prefix, first, types = FAMILIES[family]
    if family == "modernbert":
        return values_of({name: tuple(p.shape) for name, p in modern_bert().state_dict().items()})
    shapes = {"embeddings.word_embeddings.weight": (WORDS, WIDTH), "embeddings.position_embeddings.weight": (PLACES + first, WIDTH)}
    if types:
        shapes["embeddings.token_type_embeddings.weight"] = (types, WIDTH)
    shapes |= {"embeddings.LayerNorm.weight": (WIDTH,), "embeddings.LayerNorm.bias": (WIDTH,)}
    sizes = [(WIDTH, WIDTH)] * 4 + [None, (INNER, WIDTH), (WIDTH, INNER), None]
    for layer in range(LAYERS):
        for module, size in zip(modules, sizes):
            shapes[f"{prefix}.{layer}.{module}.weight"] = size or (WIDTH,)
            shapes[f"{prefix}.{layer}.{module}.bias"] = (size[0] if size else WIDTH,)
    return values_of(shapes)


def values_of(shapes):
    state = {}
    for i, (name, shape) in enumerate(shapes.items()):
        values = 0.2 * Rng(1, i).normal(math.prod(shape)).reshape(shape)
        if len(shape) == 1 and "norm" in name.lower() and name.endswith(".weight"):
            values = values + 1
        state[name] = torch.tensor(values.astype(np.float32))
    return state


def modern_bert():
    return ModernBertModel(ModernBertConfig(vocab_size=WORDS, hidden_size=WIDTH, intermediate_size=INNER,
                                            num_hidden_layers=MODERN_LAYERS, num_attention_heads=HEADS,
                                            max_position_embeddings=PLACES, local_attention=WINDOW, pad_token_id=0,
                                            bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2))


def model_of(family, kind=None):
    if family == "modernbert":
        model = modern_bert()
    elif family == "distilbert":
        model = DistilBertModel(DistilBertConfig(vocab_size=WORDS, dim=WIDTH, hidden_dim=INNER, n_layers=LAYERS, n_heads=HEADS,
                                                 max_position_embeddings=PLACES, dropout=0.0, attention_dropout=0.0))
    else:
        config, bare, eps = (BertConfig, BertModel, 1e-12) if family == "bert" else (RobertaConfig, RobertaModel, 1e-5)
        settings = (config(vocab_size=WORDS, hidden_size=WIDTH, intermediate_size=INNER, num_hidden_layers=LAYERS,
                            num_attention_heads=HEADS, max_position_embeddings=PLACES + FAMILIES[family][2],
                            type_vocab_size=FAMILIES[family][3], layer_norm_eps=eps, hidden_dropout_prob=0.0,
                            attention_probs_dropout_prob=0.0, num_labels=TAGS if kind and "Token" in kind.__name__ else 2))
        if kind:
            model = kind(settings)
            getattr(model, family).load_state_dict(state_of(family), strict=True)
            return model
        model = bare(settings, add_pooling_layer=False)
    model.load_state_dict(state_of(family), strict=True)
    return model


def add_lora(encoder, family, targets):
    """PEFT's adapter with first values of A from Rng(SEED, INITIAL_STREAM), in the order layer, module."""
    model = get_peft_model(encoder, LoraConfig(r=2, lora_alpha=4, lora_dropout=0.0, target_modules=targets))
    rng = Rng(SEED, INITIAL_STREAM)
    modules, prefix = FAMILIES[family][:2]
    for layer in range(MODERN_LAYERS if family == "modernbert" else LAYERS):
        for module in modules:
            part = model.get_submodule(f"base_model.model.{prefix}.{layer}.{module}")
            if hasattr(part, "lora_A"):
                a = part.lora_A["default"].weight
                values = (2 * rng.uniform(a.numel()) - 1) / math.sqrt(a.shape[1])
                a.data.copy_(torch.tensor(values.reshape(a.shape)))
    return model


def add_scales(encoder):
    """IA3 on ModernBERT: keys and values as Wqkv gives them, and what the feed-forward's second layer reads."""
    for i, layer in enumerate(encoder.layers):
        k, v, inner = (torch.nn.Parameter(torch.ones(n)) for n in (WIDTH, WIDTH, INNER))
        for name, p in (("k", k), ("v", v), ("ffn", inner)):
            encoder.register_parameter(f"blk_{i}_ia3_{name}", p)
        layer.attn.Wqkv.register_forward_hook(
            lambda _, __, out, k=k, v=v: out * torch.cat([torch.ones(WIDTH), k, v]))
        layer.mlp.Wo.register_forward_pre_hook(lambda _, args, inner=inner: (args[0] * inner,))
    return only_new(encoder, "ia3_")


def add_bottlenecks(encoder, place):
    """Houlsby's after both parts, or He's beside the feed-forward, whose input is the second norm's output."""
    rng = Rng(SEED, INITIAL_STREAM)
    size, scale = 4, 1.0 if place == "houlsby" else 4.0
    activation = torch.nn.functional.gelu if place == "houlsby" else torch.relu
    for i, layer in enumerate(encoder.layers):
        def make(name):
            down, up = torch.nn.Linear(WIDTH, size), torch.nn.Linear(size, WIDTH)
            with torch.no_grad():
                for linear in (down, up):
                    linear.weight.copy_(torch.tensor(0.01 * rng.normal(WIDTH * size).reshape(linear.weight.shape)))
                    linear.bias.zero_()
            encoder.add_module(f"blk_{i}_{name}", torch.nn.ModuleDict({"down": down, "up": up}))
            return lambda x: scale * up(activation(down(x)))
        if place == "houlsby":
            layer.attn.Wo.register_forward_hook(lambda _, __, out, f=make("adapter_attn"): out + f(out))
            layer.mlp.register_forward_hook(lambda _, __, out, f=make("adapter_ffn"): out + f(out))
        else:
            layer.mlp.register_forward_hook(lambda _, args, out, f=make("adapter_ffn"): out + f(args[0]))
    return only_new(encoder, "adapter_", norms=place == "houlsby")


def only_new(encoder, part, norms=False):
    for name, p in encoder.named_parameters():
        p.requires_grad_(part in name or (norms and "norm" in name))
    return encoder


class Pooled(torch.nn.Module):
    def __init__(self, encoder, family, outputs, pairs):
        super().__init__()
        self.encoder, self.padding, self.pairs = encoder, 1 if family == "roberta" else 0, pairs
        self.one_by_one = family == "modernbert"
        self.head = torch.nn.Linear(WIDTH, outputs)
        with torch.no_grad():
            values = 0.02 * Rng(SEED, HEAD_STREAM).normal(outputs * WIDTH).reshape(outputs, WIDTH)
            self.head.weight.copy_(torch.tensor(values.astype(np.float32)))
            self.head.bias.zero_()

    def forward(self, rows):
        if self.one_by_one and len(rows) > 1:
            return torch.cat([self([r]) for r in rows])
        longest = max(len(r) for r in rows)
        ids = torch.tensor([r + [self.padding] * (longest - len(r)) for r in rows])
        mask = torch.tensor([[1] * len(r) + [0] * (longest - len(r)) for r in rows])
        types = {}
        if self.pairs:  # the second half of a row is its second text
            types["token_type_ids"] = torch.tensor([[int(2 * i >= len(r)) for i in range(longest)] for r in rows]) * mask
        hidden = self.encoder(input_ids=ids, attention_mask=mask, **types).last_hidden_state
        weight = mask.unsqueeze(-1).float()
        return self.head((hidden * weight).sum(1) / weight.sum(1))


class Tokens(torch.nn.Module):
    """transformers' model for token classification or question answering; rows without padding where the loss would see it."""

    def __init__(self, model, family, targets):
        super().__init__()
        self.encoder = getattr(model, family)
        if targets:
            self.encoder = add_lora(self.encoder, family, targets)
        self.head = model.classifier if hasattr(model, "classifier") else model.qa_outputs
        self.whole = [model]  # not a module of its own
        with torch.no_grad():
            values = 0.02 * Rng(SEED, HEAD_STREAM).normal(self.head.weight.numel()).reshape(self.head.weight.shape)
            self.head.weight.copy_(torch.tensor(values.astype(np.float32)))
            self.head.bias.zero_()

    def forward(self, rows, wanted):
        """Scores of the tokens that are answered, row after row."""
        out = []
        for ids, row in zip(rows, wanted):
            answer = self.whole[0](input_ids=torch.tensor([ids]))
            if "logits" in answer:
                out.append(answer.logits[0][torch.tensor(row) != -100])
            else:
                out.append(torch.stack([answer.start_logits[0], answer.end_logits[0]], -1))
        return torch.cat(out)

    def loss(self, rows, wanted):
        if isinstance(wanted[0], tuple):
            each = [self.whole[0](input_ids=torch.tensor([ids]), start_positions=torch.tensor([first]),
                                  end_positions=torch.tensor([last])).loss for ids, (first, last) in zip(rows, wanted)]
            return torch.stack(each).mean()
        longest = max(len(r) for r in rows)
        ids = torch.tensor([r + [1] * (longest - len(r)) for r in rows])
        mask = torch.tensor([[1] * len(r) + [0] * (longest - len(r)) for r in rows])
        labels = torch.tensor([r + [-100] * (longest - len(r)) for r in wanted])
        return self.whole[0](input_ids=ids, attention_mask=mask, labels=labels).loss


def token_targets(task, rows):
    if task == "token-classification":  # the first token is not answered, the second always is
        tags, asked = Rng(8, 0), Rng(9, 0)
        out = []
        for ids, _ in rows:
            row = [int(t) for t in tags.below(TAGS, len(ids))]
            keep = [int(a) for a in asked.below(3, len(ids))]
            out.append([t if i == 1 or (i > 1 and k) else -100 for i, (t, k) in enumerate(zip(row, keep))])
        return out
    rng = Rng(10, 0)
    ends = [(int(rng.below(len(ids), 1)[0]), int(rng.below(len(ids), 1)[0])) for ids, _ in rows]
    return [(min(pair), max(pair)) for pair in ends]


def run_tokens(name, family, task, method, kind, targets, rows, order, results, tensors):
    settings = dict(COMMON)
    if targets:
        settings["lora"] = dict(r=2, alpha=4, target_modules=targets)
    model = Tokens(model_of(family, kind), family, targets)
    wanted, first = token_targets(task, rows), {}
    last = list(range(len(rows) - 1, len(rows) - 1 - TESTED, -1))

    def loss_of(batch):
        loss = lambda: model.loss([rows[i][0] for i in batch], [wanted[i] for i in batch])
        if not first:
            loss().backward()
            first.update({n.removeprefix("encoder.").removeprefix("base_model.model."): p.grad.clone()
                          for n, p in model.named_parameters() if p.requires_grad})
            model.zero_grad()
        return loss()

    def scores():
        with torch.no_grad():
            return model([rows[i][0] for i in last], [wanted[i] for i in last])

    before = scores()
    optimiser = torch.optim.AdamW(parameter_groups(model, settings, lambda n, p: p.ndim == 2))
    losses, norms = train(model, optimiser, order, loss_of)
    after = scores()
    answers = torch.softmax(after, -1) if task == "token-classification" else after
    results[name] = {"family": family, "task": task, "method": method, "pairs": False, "settings": settings,
                     "scores": before.flatten().tolist(), "losses": losses, "gradient_norms": norms,
                     "probabilities": answers.flatten().tolist()}
    tensors[name] = first


class Problem:
    """What transformers' loss reads of a configuration."""

    def __init__(self, task, outputs):
        self.num_labels = outputs
        self.problem_type = {"sequence-classification": "single_label_classification", "regression": "regression",
                             "multi-label": "multi_label_classification"}[task]


def targets_of(task, rows):
    if task == "sequence-classification":
        return torch.tensor([label for _, label in rows])
    if task == "regression":
        return torch.tensor(Rng(5, 0).normal(len(rows)).astype(np.float32))
    return torch.tensor(Rng(6, 0).below(2, len(rows) * LABEL_SETS).reshape(len(rows), LABEL_SETS).astype(np.float32))


CASES = {  # family, task, method, the job's own settings, PEFT's targets, pairs
    "bert-pairs": ("bert", "sequence-classification", "full", {}, None, True),
    "distilbert-full": ("distilbert", "sequence-classification", "full", {}, None, False),
    "distilbert-lora": ("distilbert", "sequence-classification", "lora", {}, ["q_lin", "out_lin", "lin2"], False),
    "roberta-full": ("roberta", "sequence-classification", "full", {}, None, False),
    "roberta-lora": ("roberta", "sequence-classification", "lora", {}, ["key", "dense"], False),
    "regression": ("bert", "regression", "full", {}, None, False),
    "multi-label": ("roberta", "multi-label", "full", {}, None, False),
    "modernbert-full": ("modernbert", "sequence-classification", "full", {}, None, False),
    "modernbert-lora": ("modernbert", "sequence-classification", "lora", {}, ["Wqkv", "mlp.Wo"], False),
    "modernbert-ia3": ("modernbert", "sequence-classification", "ia3", {}, None, False),
    "modernbert-houlsby": ("modernbert", "sequence-classification", "adapter-houlsby", {"adapter": dict(size=4)}, None, False),
    "pattern": ("bert", "sequence-classification", "lora", {}, r"encoder\.layer\.1\.(attention\.self\.(query|value)|output\.dense)", False),
    "modernbert-parallel": ("modernbert", "regression", "adapter-parallel", {"adapter": dict(size=4, scale=4)}, None, False),
}


TOKEN_CASES = {  # family, task, method, transformers' model, PEFT's targets
    "tokens": ("bert", "token-classification", "full", BertForTokenClassification, None),
    "tokens-roberta-lora": ("roberta", "token-classification", "lora", RobertaForTokenClassification, ["query", "dense"]),
    "spans": ("bert", "span-extraction", "full", BertForQuestionAnswering, None),
}


PATTERNS = {
    "bert": [r".*query", r"encoder\.layer\.0\..*(query|dense)", r".*\.(key|value)", r".*layer\.[^0]\..*dense", r".*\.\d+\.output\.dense"],
    "distilbert": [r".*_lin", r"transformer\.layer\.1\.ffn\.lin[12]", r".*lin\d"],
    "modernbert": [r".*Wo", r"layers\.[03]\.attn\.W.*", r".*\.mlp\.W[io]", r"layers\.(1|2)\..*Wqkv"],
}


def matched(family, pattern):
    model = get_peft_model(model_of(family), LoraConfig(r=2, target_modules=pattern))
    names = [n for n in model.base_model.targeted_module_names]
    linear = [n for n in names if any(n.endswith(m) for m in FAMILIES[family][0])]
    assert names == linear, names
    return names


def main():
    targets = {family: {p: matched(family, p) for p in patterns} for family, patterns in PATTERNS.items()}
    (DATA / "encoder_targets.json").write_text(json.dumps(targets, indent=1) + "\n")
    rows = [([i + 1 for i in ids], label) for ids, label in tiny_rows()]
    order = batches(len(rows), SEED, BATCH, STEPS)
    tested = [rows[len(rows) - 1 - i][0] for i in range(TESTED)]
    results, tensors = {}, {}
    for name, (family, task, method, own, targets, pairs) in CASES.items():
        settings = COMMON | own
        outputs = {"sequence-classification": LABELS, "regression": 1, "multi-label": LABEL_SETS}[task]
        encoder = model_of(family)
        if targets:
            encoder = add_lora(encoder, family, targets)
            settings["lora"] = dict(r=2, alpha=4, target_modules=targets)  # a pattern stands as it is
        if method == "ia3":
            encoder = add_scales(encoder)
        if method.startswith("adapter-"):
            encoder = add_bottlenecks(encoder, method.removeprefix("adapter-"))
        model = Pooled(encoder, family, outputs, pairs)
        wanted, problem, first = targets_of(task, rows), Problem(task, outputs), {}

        def loss_of(batch):
            if not first:
                logits = model([rows[i][0] for i in batch])
                ForSequenceClassificationLoss(wanted[batch], logits, problem).backward()
                first.update({n.removeprefix("encoder.").removeprefix("base_model.model."): p.grad.clone()
                              for n, p in model.named_parameters() if p.requires_grad})
                model.zero_grad()
            return ForSequenceClassificationLoss(wanted[batch], model([rows[i][0] for i in batch]), problem)

        with torch.no_grad():
            scores = model(tested)
        optimiser = torch.optim.AdamW(parameter_groups(model, settings, lambda n, p: p.ndim == 2))
        losses, norms = train(model, optimiser, order, loss_of)
        with torch.no_grad():
            after = model(tested)
        answers = {"sequence-classification": torch.softmax(after, -1), "regression": after,
                   "multi-label": torch.sigmoid(after)}[task]
        results[name] = {"family": family, "task": task, "method": method, "pairs": pairs, "settings": settings,
                         "scores": scores.flatten().tolist(), "losses": losses, "gradient_norms": norms,
                         "probabilities": answers.flatten().tolist()}
        tensors[name] = first
    for name, case in TOKEN_CASES.items():
        run_tokens(name, *case, rows, order, results, tensors)
    store("encoder_objectives", results, tensors)


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_num_threads(1)
    main()
