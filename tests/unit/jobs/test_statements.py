"""The statements are PostgreSQL's, too, as far as that can be seen without a server."""

import pytest
from sqlalchemy import Executable, Table
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable
from sqlalchemy.sql import ClauseElement

from disagfusion.jobs import sql_statements
from disagfusion.jobs.sql_schema import metadata

STATEMENTS = {
    name: value for name, value in vars(sql_statements).items() if isinstance(value, Executable)
} | {"PUT_RECORD": sql_statements.PUT_RECORD["postgresql"]}


@pytest.mark.parametrize("name", STATEMENTS)
def test_statements_compile(name: str) -> None:
    statement = STATEMENTS[name]
    assert isinstance(statement, ClauseElement)
    assert str(statement.compile(dialect=postgresql.dialect()))


@pytest.mark.parametrize("table", metadata.sorted_tables, ids=str)
def test_tables_compile(table: Table) -> None:
    assert "CREATE TABLE" in str(CreateTable(table).compile(dialect=postgresql.dialect()))
    for index in table.indexes:
        assert str(CreateIndex(index).compile(dialect=postgresql.dialect()))
