"""Where the field's datasets come from: terms, files that may be downloaded directly, and the steps that remain.

Facts about publishers, each as its own page or download script states it; nothing is downloaded here (`download`). No
checksum stands here that its publisher, or a library that verifies it, does not give.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Archive:
    """A file that the publisher lets anybody download.

    Attributes:
        file_name: what it is called on disk; never taken from a server.
        url: where it lies.
        known_hash: `sha256:…` or `md5:…`; None where the publisher gives none.
    """

    file_name: str
    url: str
    known_hash: str | None = None

    def __post_init__(self) -> None:
        if not self.url.startswith(("https://", "http://")):
            raise ValueError(f"{self.url!r} is no address of a web server")
        if not self.file_name or self.file_name.startswith(".") or any(char in self.file_name for char in "/\\\0"):
            raise ValueError(f"{self.file_name!r} is no plain file name")


@dataclass(frozen=True)
class Source:
    """What is to be known before a dataset is fetched, and after.

    Attributes:
        name: the layout that reads it.
        title: its full name.
        homepage: the publisher's page.
        terms: licence and limits, in sentences.
        archives: files to download; empty where the publisher wants an account or a form first.
        steps: what remains to be done, in order; `{folder}` is the folder of the downloads.
        root: root of the registry entry, below the folder of the downloads.
        split: the split of the registry entry.
        clip: the benchmark's clip shape.
    """

    name: str
    title: str
    homepage: str
    terms: str
    archives: tuple[Archive, ...]
    steps: tuple[str, ...]
    root: str
    split: str
    clip: str

    def registry_entry(self, folder: str) -> str:
        """The lines to add to the registry below `datasets:`."""
        root = f"{folder}/{self.root}".rstrip("/")
        return "\n".join(
            (
                f"  {self.name}:",
                f"    root: {root}",
                f"    layout: {self.name}",
                f"    split: {self.split}",
                f"    clip: {self.clip}",
                "    budget: {ipc: 1}",
            )
        )


_UCF_TERMS = (
    "UCF101 (Soomro, Zamir, Shah: CRCV-TR-12-01, 2012) is offered for research. Its videos were collected from "
    "YouTube, whose uploaders keep their rights; the publisher names no open licence. Cite the report if you use it."
)
_UCF_ARCHIVES = (
    Archive("UCF101.rar", "https://www.crcv.ucf.edu/data/UCF101/UCF101.rar"),
    Archive(
        "UCF101TrainTestSplits-RecognitionTask.zip",
        "https://www.crcv.ucf.edu/data/UCF101/UCF101TrainTestSplits-RecognitionTask.zip",
    ),
)
_UCF_STEPS = (
    "unrar x {folder}/UCF101.rar {folder}/          (or: bsdtar -xf {folder}/UCF101.rar -C {folder})",
    "unzip {folder}/UCF101TrainTestSplits-RecognitionTask.zip -d {folder}",
    "see that there is {folder}/UCF-101/<Class>/v_<Class>_gGG_cCC.avi, and {folder}/ucfTrainTestlist beside it",
)

SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source(
            "ucf101",
            "UCF101, action recognition in realistic videos (6.5 GB)",
            "https://www.crcv.ucf.edu/data/UCF101.php",
            _UCF_TERMS,
            _UCF_ARCHIVES,
            _UCF_STEPS,
            "UCF-101",
            "official-1",
            "16x112",
        ),
        Source(
            "miniucf",
            "MiniUCF: 50 classes of UCF101 (the download is UCF101's, 6.5 GB)",
            "https://www.crcv.ucf.edu/data/UCF101.php",
            _UCF_TERMS,
            _UCF_ARCHIVES,
            _UCF_STEPS,
            "UCF-101",
            "official-1",
            "16x112",
        ),
        Source(
            "hmdb51",
            "HMDB51, a large human motion database (2 GB)",
            "https://serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-database/",
            "HMDB51 (Kuehne, Jhuang, Garrote, Poggio, Serre: ICCV 2011) is published under CC BY 4.0; its clips come "
            "from films and YouTube, whose owners keep their rights. Cite the paper if you use it.",
            (
                Archive(
                    "hmdb51_org.rar",
                    "http://serre-lab.clps.brown.edu/wp-content/uploads/2013/10/hmdb51_org.rar",
                ),
                Archive(
                    "test_train_splits.rar",
                    "http://serre-lab.clps.brown.edu/wp-content/uploads/2013/10/test_train_splits.rar",
                ),
            ),
            (
                "mkdir -p {folder}/hmdb51_org && unrar x {folder}/hmdb51_org.rar {folder}/hmdb51_org/",
                'for archive in {folder}/hmdb51_org/*.rar; do unrar x "$archive" {folder}/hmdb51_org/; done',
                "unrar x {folder}/test_train_splits.rar {folder}/          (gives testTrainMulti_7030_splits)",
            ),
            "hmdb51_org",
            "official-1",
            "16x112",
        ),
        Source(
            "kinetics400",
            "Kinetics-400 (lists here; the videos are some 450 GB)",
            "https://github.com/cvdfoundation/kinetics-dataset",
            "The lists (Kay et al.: arXiv 1705.06950) are published by Google under CC BY 4.0. The videos belong to "
            "their uploaders on YouTube and fall under YouTube's terms; many are gone, and every copy lacks some.",
            (
                Archive("train.csv", "https://s3.amazonaws.com/kinetics/400/annotations/train.csv"),
                Archive("val.csv", "https://s3.amazonaws.com/kinetics/400/annotations/val.csv"),
            ),
            (
                "git clone https://github.com/cvdfoundation/kinetics-dataset",
                "follow its README for Kinetics-400: k400_downloader.sh, then k400_extractor.sh (train and val)",
                "put the folders train and val that it makes into {folder}/videos; clips may lie in a folder for each "
                "label or all in one: <id>_<start>_<end>.mp4",
            ),
            "videos",
            "official",
            "8x64",
        ),
        Source(
            "ssv2",
            "Something-Something V2 (19 GB)",
            "https://www.qualcomm.com/developer/software/something-something-v-2-dataset",
            "Something-Something V2 (Goyal et al.: ICCV 2017) is licensed by Qualcomm for research; the licence has to "
            "be accepted there with an account, and the files must not be passed on.",
            (),
            (
                "create an account at the page above, accept the licence, download the video parts and the labels",
                "put them into {folder}, then: cat {folder}/20bn-something-something-v2-?? | tar -xz -C {folder}",
                "unzip the labels into {folder}/labels (labels.json, train.json, validation.json)",
            ),
            "20bn-something-something-v2",
            "official",
            "8x64",
        ),
    )
}
"""Publishers by the name of the layout that reads their files."""
