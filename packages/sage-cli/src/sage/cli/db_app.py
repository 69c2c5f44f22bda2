"""The options of `sage db`.

The commands import the database when they are called: the others start without it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from .exit_codes import ExitCode

__all__ = ["app"]

app = typer.Typer(help="Vector databases of sage_db.", no_args_is_help=False)

Folder = Annotated[Path, typer.Argument(metavar="PATH", help="The folder of the database.", show_default=False)]
Name = Annotated[
    str | None,
    typer.Option("--collection", "-c", metavar="NAME", help="The collection; by default the only one."),
]
Json = Annotated[bool, typer.Option("--json", help="As JSON.")]


@app.callback(invoke_without_command=True)
def _db(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        sys.stdout.write(context.get_help() + "\n")
        raise typer.Exit(ExitCode.USAGE)


@app.command()
def info(path: Folder, as_json: Json = False) -> int:
    """Show the collections: documents, vectors, index, memory, fields."""
    from .db_command import show_database

    return show_database(path, as_json=as_json)


@app.command()
def search(
    path: Folder,
    query: Annotated[str | None, typer.Argument(metavar="[QUERY]", help="Words.", show_default=False)] = None,
    collection: Name = None,
    vector: Annotated[
        str | None, typer.Option(metavar="JSON", help="The query's vector, instead of an embedding of QUERY.")
    ] = None,
    top_k: Annotated[int, typer.Option("--top-k", "-k", metavar="N", min=1, help="At most so many hits.")] = 10,
    mode: Annotated[str, typer.Option(metavar="hybrid|vector|text", help="What decides.")] = "hybrid",
    embedding: Annotated[str, typer.Option(metavar="MODEL", help="The model that filled the collection.")] = "hashing",
    where: Annotated[
        str | None,
        typer.Option(metavar="JSON", help='A condition on metadata, like \'{"year": {"$gte": 2020}}\'.'),
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say what the search does, and why, instead.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
) -> int:
    """Search a collection by words, by meaning, or by a vector."""
    from .db_command import search_collection

    return search_collection(
        path,
        query,
        collection=collection,
        vector=vector,
        top_k=top_k,
        mode=mode,
        embedding=embedding,
        where=where,
        explain=explain,
        as_json=as_json,
    )


@app.command("import")
def import_(
    path: Folder,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="JSON Lines, npz, Parquet, a faiss index, an hnswlib index, or the folder of a Chroma database.",
            show_default=False,
        ),
    ],
    collection: Annotated[
        str, typer.Option("--collection", "-c", metavar="NAME", help="Where to; made if it is not there.")
    ] = "documents",
    form: Annotated[
        str | None,
        typer.Option("--format", metavar="FORMAT", help="chroma, faiss, hnswlib, jsonl, npz or parquet."),
    ] = None,
    source_collection: Annotated[str | None, typer.Option(metavar="NAME", help="Of a Chroma database.")] = None,
    dimension: Annotated[int | None, typer.Option(metavar="N", min=1, help="Of an hnswlib index.")] = None,
    metric: Annotated[
        str | None,
        typer.Option(metavar="METRIC", help="cosine, inner_product or l2; by default what the file says."),
    ] = None,
    index: Annotated[str, typer.Option(metavar="INDEX", help="auto, flat, hnsw, ivf_flat or graph.")] = "auto",
    as_json: Json = False,
) -> int:
    """Read documents from a file of another program; known ids are replaced."""
    from .db_command import import_file

    return import_file(
        path,
        file,
        collection=collection,
        form=form,
        source_collection=source_collection,
        dimension=dimension,
        metric=metric,
        index=index,
        as_json=as_json,
    )


@app.command()
def export(
    path: Folder,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A new file: .jsonl, .npz or .parquet.", show_default=False)
    ],
    collection: Name = None,
    form: Annotated[str | None, typer.Option("--format", metavar="FORMAT", help="jsonl, npz or parquet.")] = None,
    as_json: Json = False,
) -> int:
    """Write a collection into a file."""
    from .db_command import export_collection

    return export_collection(path, file, collection=collection, form=form, as_json=as_json)


@app.command()
def verify(path: Folder, as_json: Json = False) -> int:
    """Look at every byte of a database without changing it; exit code 3 when it is damaged."""
    from .db_command import verify_database

    return verify_database(path, as_json=as_json)


@app.command()
def compact(path: Folder, as_json: Json = False) -> int:
    """Put all vectors into their indexes and write a new snapshot, which makes the next opening fast."""
    from .db_command import compact_database

    return compact_database(path, as_json=as_json)
