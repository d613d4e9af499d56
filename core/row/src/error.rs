//! What SQL answers when it refuses: a closed list of SQLSTATE codes, a sentence, and where it helps a position and a hint.

use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;

macro_rules! states {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// A condition of the SQL standard or of PostgreSQL, with its five-character code (PostgreSQL 15, appendix A).
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum SqlState { $($(#[$doc])* $name,)* }
        impl SqlState {
            /// The five characters a client sees.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// The condition with this code.
            pub fn of_code(code: &str) -> Option<Self> {
                match code { $($code => Some(Self::$name),)* _ => None }
            }
        }
    };
}

states! {
    /// The text is not SQL.
    SyntaxError = "42601",
    /// A function, operator or clause that exists elsewhere but not here.
    FeatureNotSupported = "0A000",
    /// A row source of that name does not exist.
    UndefinedTable = "42P01",
    /// A column of that name does not exist.
    UndefinedColumn = "42703",
    /// No function or operator takes these types.
    UndefinedFunction = "42883",
    /// No other object (index, sequence, type, view, prepared statement) of that name.
    UndefinedObject = "42704",
    /// A parameter number without a value.
    UndefinedParameter = "42P02",
    /// Two columns answer to that name.
    AmbiguousColumn = "42702",
    /// More than one function fits.
    AmbiguousFunction = "42725",
    /// A function of that name takes these types already.
    DuplicateFunction = "42723",
    /// A table, index, view or sequence of that name exists.
    DuplicateTable = "42P07",
    /// The table has that column already.
    DuplicateColumn = "42701",
    /// A name is given twice in FROM.
    DuplicateAlias = "42712",
    /// An object of that name exists already.
    DuplicateObject = "42710",
    /// A prepared statement of that name exists.
    DuplicatePreparedStatement = "42P05",
    /// A prepared statement of that name does not exist.
    InvalidStatementName = "26000",
    /// A column is neither grouped nor aggregated.
    GroupingError = "42803",
    /// A window function stands where it must not.
    WindowingError = "42P20",
    /// Types do not fit.
    DatatypeMismatch = "42804",
    /// There is no cast between the types.
    CannotCoerce = "42846",
    /// A column list, a set operation or a target does not fit.
    InvalidColumnReference = "42P10",
    /// A recursive query is not of the supported form.
    InvalidRecursion = "42P19",
    /// The object is of the wrong kind for this.
    WrongObjectType = "42809",
    /// A table definition that contradicts itself.
    InvalidTableDefinition = "42P16",
    /// A foreign key that does not fit what it points to.
    InvalidForeignKey = "42830",
    /// Others depend on it.
    DependentObjectsStillExist = "2BP01",
    /// No type can be found for it.
    IndeterminateDatatype = "42P18",
    /// Not null.
    NotNullViolation = "23502",
    /// Foreign key.
    ForeignKeyViolation = "23503",
    /// Primary key or unique.
    UniqueViolation = "23505",
    /// CHECK.
    CheckViolation = "23514",
    /// Does not fit the type's range.
    NumericValueOutOfRange = "22003",
    /// Division by zero.
    DivisionByZero = "22012",
    /// Text that the type cannot read.
    InvalidTextRepresentation = "22P02",
    /// A date or time that cannot be read.
    InvalidDatetimeFormat = "22007",
    /// A date or time that does not exist or is out of range.
    DatetimeFieldOverflow = "22008",
    /// A value that makes no sense here.
    InvalidParameterValue = "22023",
    /// Text longer than its type.
    StringDataRightTruncation = "22001",
    /// A negative length.
    SubstringError = "22011",
    /// A bad escape in LIKE.
    InvalidEscapeSequence = "22025",
    /// A bad regular expression.
    InvalidRegularExpression = "2201B",
    /// An argument outside the domain of a logarithm.
    InvalidArgumentForLogarithm = "2201E",
    /// An argument outside the domain of a power.
    InvalidArgumentForPower = "2201F",
    /// A negative LIMIT.
    InvalidLimit = "2201W",
    /// A negative OFFSET.
    InvalidOffset = "2201X",
    /// A frame that makes no sense.
    InvalidFrame = "22013",
    /// A subquery gave more than one row.
    CardinalityViolation = "21000",
    /// A named limit: nesting.
    StatementTooComplex = "54001",
    /// A named limit: columns.
    TooManyColumns = "54011",
    /// A named limit: size of a statement, a row or a value.
    ProgramLimitExceeded = "54000",
    /// What is stored cannot be read.
    IoError = "58030",
    /// More connections write than the cluster keeps sessions for.
    TooManyConnections = "53300",
    /// Rows in memory.
    OutOfMemory = "53200",
    /// A statement took too long, or was cancelled.
    QueryCanceled = "57014",
    /// A write where only reading is allowed.
    ReadOnlyTransaction = "25006",
    /// An earlier error broke the transaction.
    InFailedTransaction = "25P02",
    /// Not inside a transaction.
    NoActiveTransaction = "25P01",
    /// Inside a transaction.
    ActiveTransaction = "25001",
    /// No such savepoint.
    InvalidSavepoint = "3B001",
    /// Somebody else changed what this read.
    SerializationFailure = "40001",
    /// The position lies below what is kept.
    SnapshotTooOld = "72000",
    /// A sequence has given all its numbers.
    SequenceLimit = "2200H",
    /// `currval` before `nextval`.
    ObjectNotInPrerequisiteState = "55000",
    /// A generated column was given a value.
    GeneratedAlways = "428C9",
    /// `width_bucket` of nothing.
    InvalidArgumentForWidthBucket = "2201G",
    /// A schema of that name exists already.
    DuplicateSchema = "42P06",
    /// Data of COPY that are not in its format.
    BadCopyFileFormat = "22P04",
    /// Bytes that are not UTF-8.
    CharacterNotInRepertoire = "22021",
    /// A schema of that name does not exist.
    InvalidSchemaName = "3F000",
    /// A name that may not be used.
    ReservedName = "42939",
    /// A function argument of JSON that has the wrong shape.
    InvalidJson = "22032",
    /// A subscript out of range.
    ArraySubscript = "2202E",
    /// An unknown setting.
    UndefinedSetting = "42P13",
    /// ON CONFLICT names what no unique index holds.
    InvalidConflictTarget = "42P11",
    /// What an index or a type is made of cannot be one.
    InvalidObjectDefinition = "42P17",
}

/// A refusal: what a client is told.
#[derive(Clone, PartialEq, Eq)]
pub struct SqlError(Box<Parts>);

/// What an error says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Parts {
    /// The condition.
    pub state: SqlState,
    /// One sentence, without a capital and without a full stop.
    pub message: String,
    /// The character of the statement it is about, counted from 1.
    pub position: Option<u32>,
    /// More about the case: keys, names.
    pub detail: Option<String>,
    /// What to try.
    pub hint: Option<String>,
}

impl SqlError {
    /// A refusal with a message.
    pub fn new(state: SqlState, message: impl Into<String>) -> Self {
        Self(Box::new(Parts { state, message: message.into(), position: None, detail: None, hint: None }))
    }

    /// With a hint.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// With a detail.
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// With a position, unless it has one.
    pub fn at(mut self, position: Option<u32>) -> Self {
        self.0.position = self.0.position.or(position);
        self
    }

    /// The condition.
    pub fn state(&self) -> SqlState {
        self.0.state
    }

    /// All of it.
    pub fn parts(&self) -> &Parts {
        &self.0
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.state.code(), self.0.message)?;
        if let Some(detail) = &self.0.detail {
            write!(f, " ({detail})")?;
        }
        if let Some(hint) = &self.0.hint {
            write!(f, "; hint: {hint}")?;
        }
        if let Some(position) = self.0.position {
            write!(f, " at character {position}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl core::error::Error for SqlError {}
